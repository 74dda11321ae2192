"""How often to save: three formulas, the replay of a trace, and what an interval that is wrong costs. Pure.

All intervals are from the beginning of one save to that of the next, as in ``every_n_seconds``. C is what a save takes
from training, L the time until it is durable, R a start-up, M the mean up-time. The exact optimum and its derivation
are in :mod:`spotproof.checkpoint.optimum`. L and R scale what is kept but do not move the optimum; what an interval
loses at a reclaim is half of it *and* L.

Sources: Young, Commun. ACM 17 (1974), doi:10.1145/361147.361115. Daly, Future Gener. Comput. Syst. 22 (2006),
doi:10.1016/j.future.2004.11.016.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from spotproof.checkpoint.optimum import optimal_seconds
from spotproof.errors import SpecError
from spotproof.plan.job import PlannedJob
from spotproof.plan.spells import Floats

__all__ = [
    "IntervalCost",
    "Intervals",
    "compare_intervals",
    "daly_seconds",
    "expected_makespan_seconds",
    "expected_running",
    "replayed_running",
    "young_seconds",
]

_RATIO: Final = 1.03
_LEAST_COST_SECONDS: Final = 0.002


def young_seconds(save_seconds: float, mean_up_seconds: float) -> float:
    """Return Young's interval: sqrt(2·C·M) of work, and the save."""
    return math.sqrt(2 * save_seconds * mean_up_seconds) + save_seconds


def daly_seconds(save_seconds: float, mean_up_seconds: float) -> float:
    """Return Daly's interval of higher order; M of work where a save costs 2·M or more."""
    half = save_seconds / (2 * mean_up_seconds)
    if half >= 1:
        return mean_up_seconds + save_seconds
    return math.sqrt(2 * save_seconds * mean_up_seconds) * (1 + math.sqrt(half) / 3 + half / 9)


def expected_running(job: PlannedJob, interval_seconds: float, mean_up_seconds: float) -> float:
    """Return the machine seconds that a second of work takes, for up-times that are exponential; inf beyond reason.

    Start-ups, saves and what reclaims lose are in it; waiting is not.
    """
    useful = interval_seconds - job.save_seconds
    if useful <= 0:
        return math.inf
    try:
        risk = math.exp((job.start_seconds + job.durable_seconds) / mean_up_seconds)
        return risk * mean_up_seconds * math.expm1(interval_seconds / mean_up_seconds) / useful
    except OverflowError:
        return math.inf


def expected_makespan_seconds(job: PlannedJob, mean_up_seconds: float, mean_down_seconds: float) -> float:
    """Return when *job* is done on spot alone, on average, for up-times that are exponential.

    ``(W / (t - C)) · e^((R + L)/M) · (M + D) · (e^(t/M) - 1)``: exact for many intervals.
    """
    running = expected_running(job, job.interval_seconds, mean_up_seconds)
    return job.work_seconds * running * (1 + mean_down_seconds / mean_up_seconds)


def replayed_running(job: PlannedJob, intervals: Floats, up_seconds: Floats) -> Floats:
    """Return the machine seconds that a second of work takes on recorded up-times, (intervals,); inf if none is kept.

    Where in an interval a reclaim falls is averaged over: a record's ticks and a start-up's length are not known to the
    second, and an interval that happens to end just before the recorded reclaims is no better than others.

    Args:
        job: Start-up, save and time to durable.
        intervals: (intervals,) to be tried.
        up_seconds: (spells,) of the trace.
    """
    total = up_seconds.sum()
    durable = up_seconds - job.start_seconds - job.durable_seconds
    saves = np.array([np.maximum(durable / interval - 0.5, 0.0).sum() for interval in intervals])
    kept = saves * (intervals - job.save_seconds)
    running: Floats = np.divide(total, kept, out=np.full_like(kept, math.inf), where=kept > 0)
    return running


@dataclass(frozen=True, kw_only=True, slots=True)
class IntervalCost:
    """An interval and what it costs."""

    name: str
    """``young``, ``daly``, ``exact``, ``replay``, or ``chosen``."""
    interval_seconds: float
    expected_running: float
    """Machine seconds per second of work, up-times exponential."""
    replayed_running: float | None
    """The same on the trace's own up-times; None without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """All answers side by side."""

    rows: tuple[IntervalCost, ...]
    chosen: IntervalCost
    half: IntervalCost
    """At half the interval chosen."""
    double: IntervalCost
    curve: tuple[IntervalCost, ...]
    """Over a wide range, for a picture."""


def compare_intervals(job: PlannedJob, mean_up_seconds: float, up_seconds: Floats | None) -> Intervals:
    """Return each formula's interval, the replay's, the one to take, and what a factor of two costs.

    The replay's is chosen where there is a trace: its up-times are what the formulas assume to be exponential. No
    interval is chosen in which a save would come due before the one before is durable.

    Args:
        job: Start-up, save and time to durable; its interval is not used.
        mean_up_seconds: Finite, > 0.
        up_seconds: (spells,) of a trace; None where up-times are assumed.

    Raises:
        SpecError: Mean up-time 0 or infinite.
    """
    if not 0 < mean_up_seconds < math.inf:
        raise SpecError(
            f"There is no best interval for a mean up-time of {mean_up_seconds} s.",
            why="Without reclaims nothing needs to be saved, and without capacity nothing runs.",
            do="Use a trace with up-times and reclaims.",
        )
    cost = max(job.save_seconds, _LEAST_COST_SECONDS)
    least = max(1.2 * (job.save_seconds + job.durable_seconds), 1.0, 1.01 * cost)
    exact = optimal_seconds(cost, mean_up_seconds)

    def costs(name: str, values: Sequence[float]) -> list[IntervalCost]:
        replayed = replayed_running(job, np.array(values), up_seconds) if up_seconds is not None else None
        return [
            IntervalCost(
                name=name,
                interval_seconds=value,
                expected_running=expected_running(job, value, mean_up_seconds),
                replayed_running=None if replayed is None else float(replayed[index]),
            )
            for index, value in enumerate(values)
        ]

    rows = [
        *costs("young", [young_seconds(cost, mean_up_seconds)]),
        *costs("daly", [daly_seconds(cost, mean_up_seconds)]),
        *costs("exact", [exact]),
    ]
    longest = max(50 * exact, 10 * least)
    steps = math.ceil(math.log(longest / least) / math.log(_RATIO))
    curve = costs("curve", [least * _RATIO**step for step in range(steps + 1)])
    best = max(exact, least)
    if up_seconds is not None:
        replay = min(curve, key=lambda row: row.replayed_running or math.inf)
        if replay.replayed_running is not None and math.isfinite(replay.replayed_running):
            rows.append(dataclasses.replace(replay, name="replay"))
            best = replay.interval_seconds
    (chosen,) = costs("chosen", [best])
    (half,) = costs("half", [max(best / 2, 1.01 * cost)])
    (double,) = costs("double", [best * 2])
    return Intervals(rows=tuple(rows), chosen=chosen, half=half, double=double, curve=tuple(curve))
