"""The interval between saves that loses least, its bounds, and why it is what it is. Pure.

The model. A save begins every t seconds. It costs C: training stands still for the copy, and steps are slower while
it is written. It becomes durable L seconds after it began. Interruptions come at a constant rate 1/M, and a restart
takes R. An attempt that is interrupted after U seconds has made 1 + floor((U - R - L - t) / t) saves durable, each
worth t - C seconds of training; the expectation over U is::

    e^(-(R + L)/M) · (t - C) / (e^(t/M) - 1)        seconds of training kept per attempt

So the restart's cost and the time until a save is durable decide how much is kept, but not which t keeps most: they
are a factor. (What an interruption loses is half an interval *and* L; no t can save the L.) Setting the derivative to
zero gives ``x + e^(-x) = 1 + C/M`` with x = t/M, solved by ``t = C + M·(1 + W(-e^(-1 - C/M)))`` with Lambert's W. This
is exact for the model, at any C/M; Young's sqrt(2·C·M) is its first term, and Daly's series its first three.

Lifetimes of real spot machines scatter more than the exponential's. The optimum is flat: an interval that is wrong by
a factor of two loses a quarter more than the best one does.

Sources: Young, Commun. ACM 17 (1974), doi:10.1145/361147.361115. Daly, Future Gener. Comput. Syst. 22 (2006),
doi:10.1016/j.future.2004.11.016. That the latency L does not move the optimum: Vaidya, IEEE Trans. Comput. 46 (1997),
doi:10.1109/12.609281. tests/property/test_interval.py plays the model through and searches for a better t.
"""

import math
from dataclasses import dataclass
from typing import Literal

from spotproof.checkpoint.uptime import MeanUptime

__all__ = [
    "LONGEST_SECONDS",
    "SHORTEST_SECONDS",
    "Bound",
    "Choice",
    "SaveCost",
    "budget_limit",
    "choose_interval",
    "optimal_seconds",
]

SHORTEST_SECONDS = 1.0
"""Saving more often gains less than a second at an interruption."""
LONGEST_SECONDS = 900.0
"""The optimum is flat: a shorter interval costs next to nothing where M is large, and means are never that certain."""
_LEAST_COST_SECONDS = 0.002
"""Reckoned for each save even if no cost could be measured: caches, storage operations, lines of events."""
_DURABLE_MARGIN = 1.2
"""A save that is due while the one before is being written has to wait for it; a bit later it need not."""
_TRUSTED_INTERRUPTIONS = 3
"""As many must have been seen before they may overrule the budget."""

Bound = Literal["optimum", "budget", "durable", "shortest", "longest", "uptime", "second look"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveCost:
    """What one save costs a training."""

    stall_seconds: float
    """Training stands still."""
    slowdown_seconds: float
    """What the steps take longer, all together, while the copy is written."""
    durable_seconds: float
    """From the end of the stall to the commit. No cost: training goes on meanwhile."""

    @property
    def seconds(self) -> float:
        """Return what is lost to training."""
        return self.stall_seconds + self.slowdown_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An interval, and what it was made of."""

    seconds: float
    """From the beginning of one save to that of the next."""
    bound: Bound
    """What decided: the ``optimum``; the ``budget``; the time until a save is ``durable``; the ``shortest`` or
    ``longest`` interval there is; the mean ``uptime``, which a budget can't go beyond; or a ``second look`` at a save
    that seems too dear to be true."""
    optimum_seconds: float
    """What would lose least, without bounds."""
    cost: SaveCost
    uptime: MeanUptime
    budget: float

    @property
    def reason(self) -> str:
        """Return one sentence for people."""
        stall, slowdown = _text(self.cost.stall_seconds), _text(self.cost.slowdown_seconds)
        costs = f"a save costs {_text(self.cost.seconds)} ({stall} of stall, {slowdown} of slowed steps)"
        count = self.uptime.interruptions
        seen = "as is assumed, for none was seen yet" if not count else f"{count} seen" if count > 1 else "one seen"
        taken = f"an interruption comes every {_text(self.uptime.seconds)} ({seen})"
        best = f"{_text(self.optimum_seconds)} would lose least where {taken}"
        share = f"{100 * self.budget:g} %"
        why = {
            "optimum": f"this loses least where {costs} and {taken}",
            "budget": f"more often would go beyond the budget of {share}, because {costs}; {best}",
            "durable": f"a save takes {_text(self.cost.durable_seconds)} to become durable, and only one is under way "
            f"at a time; {best}",
            "shortest": f"this is the shortest interval, and {costs}; {best}",
            "longest": f"this is the longest interval, and {costs}; {best}",
            "uptime": f"{costs}, so that the budget of {share} would ask for "
            f"{_text(self.cost.seconds / self.budget)} between saves, but {taken}, and a run that saves more rarely "
            "than it is interrupted gets nowhere",
            "second look": f"the first {costs[2:]}, which the budget of {share} would allow only every "
            f"{_text(self.cost.seconds / self.budget)}; one more will show whether that is so",
        }
        return f"Saving every {_text(self.seconds)}: {why[self.bound]}."


def optimal_seconds(cost_seconds: float, mean_uptime_seconds: float) -> float:
    """Return the time from the beginning of one save to that of the next at which interruptions lose least.

    Exact for interruptions at a constant rate; see the head of this file.

    Args:
        cost_seconds: C > 0, what one save takes from training.
        mean_uptime_seconds: M > 0.
    """
    share = cost_seconds / mean_uptime_seconds
    # Right of the solution of a convex equation, so that Newton's steps come down to it without ever passing it.
    x = share + math.sqrt(2 * share)
    for _ in range(50):
        step = (x + math.expm1(-x) - share) / -math.expm1(-x)
        x -= step
        if step <= 1e-12 * x:
            break
    return x * mean_uptime_seconds


def budget_limit(uptime: MeanUptime, *, is_measured_once: bool = False) -> float:
    """Return the longest interval that a budget may ask for.

    A run that saves more rarely than it is interrupted hardly moves: there the budget yields. And one measure does not
    stop saves for hours: a virtual machine that was paused within a stall looks like a stall of minutes.
    """
    limit = uptime.seconds if uptime.interruptions >= _TRUSTED_INTERRUPTIONS else math.inf
    return min(limit, LONGEST_SECONDS) if is_measured_once else limit


def choose_interval(cost: SaveCost, uptime: MeanUptime, budget: float, *, is_measured_once: bool = False) -> Choice:
    """Return the best interval within the bounds.

    Never so short that saves take more than *budget* of the time, or that one is due before the last is durable; and
    within a second and fifteen minutes, unless those bounds ask for more. The kept work has one maximum, so the best
    within bounds is the optimum or the bound next to it.

    Args:
        cost: As measured.
        uptime: Mean running time between interruptions.
        budget: Share of the time, 0 < budget < 1, that stalls and slowed steps may take.
        is_measured_once: Whether *cost* is that of a single save.
    """
    assert 0 < budget < 1
    optimum = optimal_seconds(max(cost.seconds, _LEAST_COST_SECONDS), uptime.seconds)
    affordable = cost.seconds / budget
    limit = budget_limit(uptime, is_measured_once=is_measured_once)
    over: Bound = "second look" if limit == LONGEST_SECONDS else "uptime"
    best: tuple[float, Bound] = (LONGEST_SECONDS, "longest") if optimum > LONGEST_SECONDS else (optimum, "optimum")
    least: list[tuple[float, Bound]] = [
        (SHORTEST_SECONDS, "shortest"),
        (_DURABLE_MARGIN * (cost.stall_seconds + cost.durable_seconds), "durable"),
        (affordable, "budget") if affordable <= limit else (max(limit, best[0]), over),
    ]
    seconds, bound = max(*least, best, key=lambda item: item[0])
    return Choice(seconds=seconds, bound=bound, optimum_seconds=optimum, cost=cost, uptime=uptime, budget=budget)


def _text(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        # From 1.5 of a unit on; 90 s are said as seconds.
        if seconds >= (1.5 * length if length > 1 else 0.9995):
            number = seconds / length
            return f"{number:.2g} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    return f"{seconds * 1000:.3g} ms"
