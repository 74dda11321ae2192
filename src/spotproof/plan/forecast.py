"""What a policy makes of a job, over start times: how long, how dear, how likely in time. Pure and seeded.

Jobs are played in batches of one size, and each batch is counted into distributions and forgotten: memory does not
grow with the number of jobs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from spotproof.plan.distribution import Distribution
from spotproof.plan.job import PlannedJob, Pool
from spotproof.plan.omniscient import omniscient_bound
from spotproof.plan.rules import Policy
from spotproof.plan.simulate import play
from spotproof.plan.spells import Floats

__all__ = ["Bounds", "Forecast", "Spread", "forecast", "forecast_bound", "start_times"]

_BATCH: Final = 4096
_TOLERANCE_SECONDS: Final = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A distribution in four numbers; quantiles are right to a thousandth, and of counts exact."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What becomes of a job under one policy. Simulated; times in seconds."""

    policy: Policy
    num_jobs: int
    deadline_share: float
    """Of the jobs, how many were done by the deadline: P(deadline)."""
    finish_seconds: Spread
    """From the creation; inf for a job that is not done after 28 days."""
    cost_usd: Spread
    lost_seconds: Spread
    """Work done again."""
    waiting_seconds: Spread
    reclaims: Spread
    running_seconds: Spread
    """On machines, start-ups included."""
    spot_seconds: float
    """Mean, on spot machines."""
    on_demand_seconds: float
    """Mean, on demand."""
    spot_work_seconds: float
    on_demand_work_seconds: float
    aws_savings_percent: float
    """Against the same running time on demand, as SageMaker counts it."""
    net_savings_percent: float
    """Against one undisturbed run on demand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What no policy can beat; nan where no schedule keeps the deadline."""

    num_jobs: int
    cost_usd: Spread
    on_demand_work_seconds: float
    spot_work_seconds: float
    net_savings_percent: float


def start_times(pools: Sequence[Pool], deadline_seconds: float, num_jobs: int, seed: int) -> Iterator[Floats]:
    """Yield batches of moments at which jobs are created: spread evenly over the longest trace, of capacity or of
    prices, and jittered.

    Traces that are long enough are not run over their end; shorter ones begin again from their start.
    """
    laps = [pool.spells.lap_seconds for pool in pools if math.isfinite(pool.spells.lap_seconds)]
    laps.extend(pool.course.length_seconds for pool in pools if pool.course is not None)
    lap = max(laps, default=86400.0)
    span = lap - deadline_seconds if lap >= 2 * deadline_seconds else lap
    for first in range(0, num_jobs, _BATCH):
        places = np.arange(first, min(first + _BATCH, num_jobs), dtype=np.float64)
        jitter = np.random.default_rng([seed, first]).random(len(places))
        yield (places + jitter) * (span / num_jobs)


def forecast(job: PlannedJob, pools: Sequence[Pool], policy: Policy, *, num_jobs: int, seed: int = 0) -> Forecast:
    """Return what *policy* makes of *job*, over *num_jobs* start times.

    Args:
        job: The work and its costs.
        pools: Where spot capacity may come from.
        policy: The rule.
        num_jobs: >= 1.
        seed: Of the start times.
    """
    names = ("finish_seconds", "cost_usd", "lost_seconds", "waiting_seconds", "reclaims", "running_seconds")
    found = {name: Distribution() for name in names}
    in_time = 0
    sums = dict.fromkeys(("spot_seconds", "on_demand_seconds", "spot_work_seconds", "on_demand_work_seconds"), 0.0)
    for starts in start_times(pools, job.deadline_seconds, num_jobs, seed):
        outcomes = play(job, pools, policy, starts)
        for name in names[:-1]:
            found[name].add(getattr(outcomes, name))
        found["running_seconds"].add(outcomes.spot_seconds + outcomes.on_demand_seconds)
        in_time += int((outcomes.finish_seconds <= job.deadline_seconds + _TOLERANCE_SECONDS).sum())
        for name in sums:
            sums[name] += float(getattr(outcomes, name).sum())
    means = {name: value / num_jobs for name, value in sums.items()}
    cost = found["cost_usd"].mean
    return Forecast(
        policy=policy,
        num_jobs=num_jobs,
        deadline_share=in_time / num_jobs,
        finish_seconds=_spread(found["finish_seconds"]),
        cost_usd=_spread(found["cost_usd"]),
        lost_seconds=_spread(found["lost_seconds"]),
        waiting_seconds=_spread(found["waiting_seconds"]),
        reclaims=_spread(found["reclaims"]),
        running_seconds=_spread(found["running_seconds"]),
        spot_seconds=means["spot_seconds"],
        on_demand_seconds=means["on_demand_seconds"],
        spot_work_seconds=means["spot_work_seconds"],
        on_demand_work_seconds=means["on_demand_work_seconds"],
        aws_savings_percent=_savings(cost, means["spot_seconds"] + means["on_demand_seconds"], job),
        net_savings_percent=_savings(cost, job.undisturbed_seconds, job),
    )


def forecast_bound(job: PlannedJob, pools: Sequence[Pool], *, num_jobs: int, seed: int = 0) -> Bounds:
    """Return what knowing the whole trace beforehand could make of *job*, over the same start times."""
    costs = Distribution()
    on_demand = spot = 0.0
    for starts in start_times(pools, job.deadline_seconds, num_jobs, seed):
        bound = omniscient_bound(job, pools, starts)
        costs.add(bound.cost_usd[~np.isnan(bound.cost_usd)])
        on_demand += float(bound.on_demand_work_seconds.sum())
        spot += float(bound.spot_work_seconds.sum())
    return Bounds(
        num_jobs=num_jobs,
        cost_usd=_spread(costs),
        on_demand_work_seconds=on_demand / num_jobs,
        spot_work_seconds=spot / num_jobs,
        net_savings_percent=_savings(costs.mean, job.undisturbed_seconds, job),
    )


def _spread(distribution: Distribution) -> Spread:
    p50, p90, p99 = distribution.quantiles((0.5, 0.9, 0.99))
    return Spread(mean=distribution.mean, p50=p50, p90=p90, p99=p99)


def _savings(cost_usd: float, seconds: float, job: PlannedJob) -> float:
    on_demand_usd = seconds * job.usd_per_hour / 3600
    return (1 - cost_usd / on_demand_usd) * 100 if on_demand_usd > 0 else math.nan
