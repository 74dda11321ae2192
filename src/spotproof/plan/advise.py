"""From a job, its costs and its capacity to a plan: forecasts of every policy, and what to ask for. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from spotproof.errors import SpecError
from spotproof.plan.capacity import Offer
from spotproof.plan.costs import Costs
from spotproof.plan.forecast import Bounds, Forecast, forecast, forecast_bound
from spotproof.plan.intervals import Intervals, compare_intervals
from spotproof.plan.job import PlannedJob, Pool
from spotproof.plan.prices import Price
from spotproof.plan.recommend import Recommendation, recommend
from spotproof.plan.rules import POLICIES
from spotproof.plan.simulate import LONGEST_SECONDS
from spotproof.plan.spells import SpellStatistics, spells_of

__all__ = ["Plan", "PoolSummary", "Question", "make_plan"]

_QUIET_SECONDS: Final = 7 * 24 * 3600.0
"""Mean up-time to reckon with where a trace shows no reclaim at all."""
_BOUND_JOBS: Final = 1024
_SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked."""

    work_seconds: float
    """Of undisturbed training on demand, start-up aside."""
    deadline_seconds: float
    """From the job's creation."""
    num_instances: int
    costs: Costs
    offers: tuple[Offer, ...]
    on_demand: Price | None
    """Of one instance."""
    confidence: float = 0.99
    """The least P(deadline) that is acceptable."""
    num_jobs: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, seconds in (("work", self.work_seconds), ("deadline", self.deadline_seconds)):
            if not 0 < seconds < math.inf:
                raise SpecError(f"A {name} of {seconds:g} s can't be planned.", do=f"Give a {name} above 0.")
        if self.deadline_seconds > LONGEST_SECONDS:
            raise SpecError(
                f"A deadline of {self.deadline_seconds / 86400:.3g} days can't be planned.",
                why="SageMaker's longest job, waiting included, is 28 days.",
                do="Cut the work into several jobs.",
            )
        if not 0 < self.confidence <= 1:
            raise SpecError(f"A confidence of {self.confidence:g} is no share.", do="Give 0.99 for 99 in 100.")
        if self.num_jobs < 1:
            raise SpecError(f"{self.num_jobs} simulated jobs say nothing.", do="Give 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSummary:
    """Capacity as the plan reckons with it."""

    name: str
    is_assumed: bool
    statistics: SpellStatistics
    spot: Price | None
    speed: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The answer. Forecasts are simulated; costs say where they come from; prices say of when they are."""

    question: Question
    job: PlannedJob
    """With the interval chosen."""
    pools: tuple[PoolSummary, ...]
    has_prices: bool
    """Whether costs in USD mean anything."""
    intervals: Intervals
    forecasts: tuple[Forecast, ...]
    bound: Bounds | None
    """None without prices."""
    break_even_percent: float | None
    """Spot on its own is cheaper while its price is below this share of the on-demand price."""
    recommendation: Recommendation


def make_plan(question: Question) -> Plan:
    """Return forecasts of every policy, and what to do.

    Raises:
        SpecError: The deadline comes before the work can be done, or there is never enough capacity.
    """
    has_prices = (question.on_demand is not None and question.on_demand.on_demand_usd_per_hour is not None) and all(
        offer.price is not None and offer.price.spot_usd_per_hour is not None for offer in question.offers
    )
    pools = build_pools(question, has_prices=has_prices)
    intervals = _intervals(question, pools)
    job = build_job(question, intervals.chosen.interval_seconds, has_prices=has_prices)
    _check_deadline(job)
    forecasts = tuple(
        forecast(job, pools, policy, num_jobs=question.num_jobs, seed=question.seed) for policy in POLICIES
    )
    bound = None
    if has_prices:
        count = min(question.num_jobs, _BOUND_JOBS)
        bound = forecast_bound(job, pools, num_jobs=count, seed=question.seed)
    spot = next(found for found in forecasts if found.policy == "spot")
    break_even = None
    if spot.deadline_share > 0 and spot.spot_seconds > 0 and math.isfinite(spot.finish_seconds.mean):
        break_even = 100 * job.undisturbed_seconds / spot.spot_seconds
    return Plan(
        question=question,
        job=job,
        pools=tuple(
            PoolSummary(
                name=offer.name,
                is_assumed=offer.is_assumed,
                statistics=pool.spells.statistics(),
                spot=offer.price,
                speed=offer.speed,
            )
            for offer, pool in zip(question.offers, pools, strict=True)
        ),
        has_prices=has_prices,
        intervals=intervals,
        forecasts=forecasts,
        bound=bound,
        break_even_percent=break_even,
        recommendation=recommend(
            job, forecasts, has_prices=has_prices, confidence=question.confidence, break_even_percent=break_even
        ),
    )


def build_pools(question: Question, *, has_prices: bool) -> list[Pool]:
    """Return the capacity for all instances of the job; without prices, at none."""
    pools = []
    for offer in question.offers:
        usd = (offer.price.spot_usd_per_hour or 0.0) if has_prices and offer.price is not None else 0.0
        spells = spells_of(offer.trace, question.num_instances)
        course = offer.price.course if has_prices and offer.price is not None else None
        usd *= question.num_instances
        pools.append(Pool(name=offer.name, spells=spells, usd_per_hour=usd, speed=offer.speed, course=course))
    if not any(len(pool.spells.starts) for pool in pools):
        most = max(max(offer.trace.available) for offer in question.offers)
        names = ", ".join(offer.name for offer in question.offers)
        raise SpecError(
            f"{names}: there are never {question.num_instances} instances at once.",
            why=f"The most there are is {most}, and a job runs on all of its instances or not at all.",
            do="Use a trace of more instances, or a smaller instance_count. If 1 stands for preempted in it, "
            "add @polarity=unavailable.",
        )
    return pools


def build_job(question: Question, interval_seconds: float, *, has_prices: bool) -> PlannedJob:
    """Return the job that is played."""
    costs, price = question.costs, question.on_demand
    usd = (price.on_demand_usd_per_hour or 0.0) if has_prices and price is not None else 0.0
    return PlannedJob(
        work_seconds=question.work_seconds,
        deadline_seconds=question.deadline_seconds,
        start_seconds=costs.start_seconds,
        interval_seconds=interval_seconds,
        save_seconds=costs.save_seconds,
        durable_seconds=costs.durable_seconds,
        usd_per_hour=usd * question.num_instances,
    )


def _intervals(question: Question, pools: Sequence[Pool]) -> Intervals:
    job = build_job(question, max(1.0, 2 * question.costs.save_seconds), has_prices=False)
    ups = np.concatenate([pool.spells.up_seconds for pool in pools])
    ups = ups[np.isfinite(ups)]
    is_recorded = bool(len(ups)) and not any(offer.is_assumed for offer in question.offers)
    mean = float(ups.mean()) if len(ups) else _QUIET_SECONDS
    return compare_intervals(job, mean, ups if is_recorded else None)


def _check_deadline(job: PlannedJob) -> None:
    if job.deadline_seconds < job.undisturbed_seconds:
        needed, given = job.undisturbed_seconds / _SECONDS_PER_HOUR, job.deadline_seconds / _SECONDS_PER_HOUR
        is_possible = job.undisturbed_seconds <= LONGEST_SECONDS
        raise SpecError(
            f"The deadline, {given:.4g} h, comes before the work can be done.",
            why=f"Undisturbed and on demand the job takes {needed:.4g} h: {job.work_seconds / _SECONDS_PER_HOUR:.4g} h "
            "of work, start-up and saves.",
            do=f"Give --deadline {math.ceil(needed * 10) / 10:g}h or more, or less --work."
            if is_possible
            else "SageMaker's longest job, waiting included, is 28 days: cut the work into several jobs.",
        )
