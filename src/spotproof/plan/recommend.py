"""Which policy to take, and what to write into job.yaml. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spotproof.plan.forecast import Forecast
from spotproof.plan.job import PlannedJob
from spotproof.plan.rules import Policy
from spotproof.plan.simulate import LONGEST_SECONDS

__all__ = ["Recommendation", "recommend"]

_MARGIN: Final = 1.1
"""On running time: max_run ends a job that would have been done a minute later."""
_ROUND_SECONDS: Final = 600
_HOURS_PER_RETRY: Final = 24.0
_MOST_RETRIES: Final = 30
_NOTICEABLE_PERCENT: Final = 1.0
"""Two policies that differ by less are as dear; the simpler one is taken."""
_SIMPLE_FIRST: Final[tuple[Policy, ...]] = ("on-demand", "spot", "greedy", "uniform-progress")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What to do."""

    policy: Policy
    is_spot_worth_it: bool
    use_spot_instances: bool
    max_run: int
    """Seconds."""
    max_wait: int | None
    """Seconds; None on demand, where the service refuses it."""
    max_retry_attempts: int
    """For internal errors of the service; reclaims do not count."""
    every_n_seconds: float
    """Between saves."""
    reason: str
    how: str
    """What has to be done for the policy, as the service does not do it."""


def recommend(
    job: PlannedJob,
    forecasts: Sequence[Forecast],
    *,
    has_prices: bool,
    confidence: float,
    break_even_percent: float | None,
) -> Recommendation:
    """Return the cheapest policy that keeps the deadline with *confidence*; without prices, the least on demand."""
    by_policy = {found.policy: found for found in forecasts}
    on_demand = by_policy["on-demand"]
    sure = [by_policy[name] for name in _SIMPLE_FIRST if by_policy[name].deadline_share >= confidence]

    def burden(found: Forecast) -> float:
        return found.cost_usd.mean if has_prices else found.on_demand_seconds

    least = min(burden(found) for found in sure)
    slack = _NOTICEABLE_PERCENT / 100 * burden(on_demand)
    best = next(found for found in sure if burden(found) <= least + slack)
    running = max(best.running_seconds.p99, job.undisturbed_seconds)
    limit = min(LONGEST_SECONDS, job.deadline_seconds)
    is_spot = best.policy != "on-demand"
    max_run = _rounded(min(running * _MARGIN, LONGEST_SECONDS))
    if is_spot:
        max_run = min(max_run, int(limit))
    return Recommendation(
        policy=best.policy,
        is_spot_worth_it=is_spot,
        use_spot_instances=is_spot,
        max_run=max_run,
        max_wait=max(int(limit), max_run) if is_spot else None,
        max_retry_attempts=min(_MOST_RETRIES, 1 + math.ceil(running / 3600 / _HOURS_PER_RETRY)),
        every_n_seconds=job.interval_seconds,
        reason=_reason(best, by_policy, has_prices, confidence, break_even_percent),
        how=_how(best.policy),
    )


def _rounded(seconds: float) -> int:
    return math.ceil(seconds / _ROUND_SECONDS) * _ROUND_SECONDS


def _reason(
    best: Forecast,
    by_policy: dict[Policy, Forecast],
    has_prices: bool,
    confidence: float,
    break_even_percent: float | None,
) -> str:
    spot = by_policy["spot"]
    chance = f"spot alone is done in time in {100 * spot.deadline_share:.3g} % of the cases"
    if best.policy == "on-demand":
        even = (
            f"; spot alone would break even at {break_even_percent:.0f} % of the on-demand price"
            if break_even_percent is not None
            else ""
        )
        others = [found for found in by_policy.values() if found.policy != "on-demand" and has_prices]
        saved = max((found.net_savings_percent for found in others if found.deadline_share >= confidence), default=None)
        least = (
            f"what keeps the deadline saves {saved:.1f} % at best, "
            if saved is not None and saved > 0
            else "what keeps the deadline saves nothing, "
        )
        return f"Spot is not worth it: {least}and {chance}{even}."
    saves = f", and saves {best.net_savings_percent:.0f} % net" if has_prices else ""
    if best.policy == "spot":
        return f"{chance[0].upper()}{chance[1:]}{saves}."
    hours = f"{best.on_demand_seconds / 3600:.3g} h of it on demand on average"
    return f"It keeps the deadline in {100 * best.deadline_share:.4g} % of the cases, {hours}{saves}; {chance}."


def _how(policy: Policy) -> str:
    if policy == "on-demand":
        return "Submit without use_spot_instances and max_wait."
    if policy == "spot":
        return "Submit as managed spot; the service restarts the job by itself."
    moves = "Managed spot never goes on demand by itself: stop the job and submit it on demand with the same "
    place = "checkpoint_s3_uri"
    if policy == "greedy":
        return f"{moves}{place} once the time left is what the rest takes, two start-ups, an interval and its upload."
    return f"{moves}{place} when it waits and is behind an even pace; go back to spot once two start-ups ahead of it."
