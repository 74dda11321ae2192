"""Cost against deadline, for a picture: every policy at a row of deadlines. Pure and seeded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from spotproof.plan.advise import Plan, build_pools
from spotproof.plan.forecast import forecast, forecast_bound
from spotproof.plan.rules import POLICIES
from spotproof.plan.simulate import LONGEST_SECONDS

__all__ = ["DeadlineCurve", "deadline_curves"]

_POINTS: Final = 14
_JOBS: Final = 2000
_BOUND_JOBS: Final = 256
_WIDEST: Final = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlineCurve:
    """One policy at several deadlines."""

    policy: str
    deadline_seconds: tuple[float, ...]
    burden: tuple[float, ...]
    """Mean cost in USD; without prices, mean seconds on demand. nan where it means nothing."""
    deadline_share: tuple[float, ...]


def deadline_curves(plan: Plan) -> list[DeadlineCurve]:
    """Return a curve for each policy and, with prices, for the bound; the plan's own deadline is one of the points.

    ``spot`` does not look at the deadline: its cost is flat, and only its chance grows.
    """
    job = plan.job
    shortest = job.undisturbed_seconds * 1.001
    longest = min(LONGEST_SECONDS, max(_WIDEST * shortest, 1.2 * job.deadline_seconds))
    ratio = longest / shortest
    deadlines = [shortest * ratio ** (index / (_POINTS - 1)) for index in range(_POINTS)]
    deadlines = sorted({*deadlines, job.deadline_seconds})
    pools = build_pools(plan.question, has_prices=plan.has_prices)
    count, seed = min(_JOBS, plan.question.num_jobs), plan.question.seed
    curves = []
    for policy in POLICIES:
        found = [
            forecast(replace(job, deadline_seconds=deadline), pools, policy, num_jobs=count, seed=seed)
            for deadline in deadlines
        ]
        burdens = [each.cost_usd.mean if plan.has_prices else each.on_demand_seconds for each in found]
        curves.append(_curve(policy, deadlines, burdens, [each.deadline_share for each in found]))
    if plan.has_prices:
        bounds = [
            forecast_bound(
                replace(job, deadline_seconds=deadline), pools, num_jobs=min(count, _BOUND_JOBS), seed=seed
            ).cost_usd.mean
            for deadline in deadlines
        ]
        curves.append(_curve("none can beat", deadlines, bounds, [1.0] * len(deadlines)))
    return curves


def _curve(policy: str, deadlines: Sequence[float], burdens: Sequence[float], shares: Sequence[float]) -> DeadlineCurve:
    return DeadlineCurve(
        policy=policy,
        deadline_seconds=tuple(deadlines),
        burden=tuple(value if math.isfinite(value) else math.nan for value in burdens),
        deadline_share=tuple(shares),
    )
