"""``every_n_seconds="auto"``: from what saves cost to when the next one is due. Pure: the clock is the caller's.

:mod:`spotproof.checkpoint.optimum` says which interval is best for a cost and a mean uptime; this file knows the cost,
and keeps the interval calm while measures are noisy.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence

from spotproof.checkpoint.optimum import Choice, SaveCost, budget_limit, choose_interval
from spotproof.checkpoint.pace import Pace
from spotproof.checkpoint.uptime import Uptime, mean_uptime
from spotproof.errors import SpecError

__all__ = ["DEFAULT_OVERHEAD_BUDGET", "IntervalTuner", "checked_budget"]

DEFAULT_OVERHEAD_BUDGET = 0.02
"""Share of the time; CheckFreq (FAST '21) allows itself 3.5 %."""

_FIRST_SECONDS = 10.0
"""Before anything was measured."""
_SAVES = 5
"""Medians over so many follow a state that doubles within three saves, and shrug off two that are odd."""
_EARLIER_SAVES = 2
"""Taken over from the attempt before: this machine's own outweigh them after three."""
_NOTICEABLE = 1.2
_SAVES_WITHOUT_IDLE = 8
"""Where each step falls on a save, one in so many waits for a step that does not, to have something to compare with."""
_DEAREST = 4.0
"""A save that costs more than so many usual ones counts as so many: it was the machine's doing, and must not put
off the next one for hours."""


def checked_budget(overhead_budget: float) -> float:
    """Return *overhead_budget*.

    Raises:
        SpecError: It is no share of the time.
    """
    if isinstance(overhead_budget, bool) or not 0 < overhead_budget < 1:
        raise SpecError(
            f"overhead_budget={overhead_budget!r} is no share of the running time.",
            why="It bounds how much of the time stalls and slowed steps may take.",
            do=f"Use a number between 0 and 1; the default is {DEFAULT_OVERHEAD_BUDGET}.",
        )
    return overhead_budget


class IntervalTuner:
    """Measures saves, and says how long to wait for the next."""

    def __init__(
        self,
        budget: float = DEFAULT_OVERHEAD_BUDGET,
        *,
        uptimes: Sequence[Uptime] = (),
        costs: Sequence[SaveCost] = (),
    ) -> None:
        """Begin with what is known.

        Args:
            budget: Share of the time that stalls and slowed steps may take, between 0 and 1.
            uptimes: Of this run's earlier attempts.
            costs: Of the saves of the attempt before, oldest first.
        """
        self._budget = budget
        self._uptimes = list(uptimes)
        self._pace = Pace()
        self._stalls: deque[float] = deque([cost.stall_seconds for cost in costs[-_EARLIER_SAVES:]], maxlen=_SAVES)
        self._durables: deque[float] = deque([cost.durable_seconds for cost in costs[-_EARLIER_SAVES:]], maxlen=_SAVES)
        self._earlier_slowdown = costs[-1].slowdown_seconds if costs else 0.0
        self._seconds = _FIRST_SECONDS
        self._announced: float | None = None
        self._unpaid = 0.0
        """Seconds that saves have taken beyond what the budget has granted since."""
        self._limit = math.inf
        self._saves_without_idle = 0

    @property
    def cost(self) -> SaveCost | None:
        """Return what a save usually costs, or None before the first."""
        if not self._stalls:
            return None
        slowdown = self._pace.slowdown_seconds
        # The lower of two: the first saves are cold, and what disturbs a measure makes it longer.
        return SaveCost(
            stall_seconds=statistics.median_low(self._stalls),
            slowdown_seconds=self._earlier_slowdown if slowdown is None else slowdown,
            durable_seconds=statistics.median_low(self._durables) if self._durables else 0.0,
        )

    @property
    def seconds(self) -> float:
        """Return the time from the last save to the next: the interval, or longer if the last was unusually dear."""
        return max(self._seconds, min(self._unpaid / self._budget, self._limit))

    @property
    def wants_idle_step(self) -> bool:
        """Whether the next save should wait for a step that no save falls on."""
        return self._saves_without_idle >= _SAVES_WITHOUT_IDLE

    @property
    def is_undecided(self) -> bool:
        """Whether :meth:`step` has not said yet that it is time to decide, for want of steps that no save fell on."""
        return self._pace.is_open

    def step(self, seconds: float, *, is_writing: bool) -> bool:
        """Take one step into account; return whether it is time to :meth:`decide`. See :meth:`Pace.step`."""
        if not is_writing:
            self._saves_without_idle = 0
        return self._pace.step(seconds, is_writing=is_writing)

    def saved(self, stall_seconds: float, since_last: float, uptime_seconds: float) -> None:
        """Take a save into account that has just begun.

        Args:
            stall_seconds: How long it stopped training.
            since_last: Time since the save before it began, or since training did.
            uptime_seconds: Since training began.
        """
        self._pace.save_begins()
        self._saves_without_idle += 1
        self._stalls.append(stall_seconds)
        cost = self.cost
        assert cost is not None
        self._unpaid = max(0.0, self._unpaid - self._budget * since_last) + stall_seconds + cost.slowdown_seconds
        self._unpaid = min(self._unpaid, _DEAREST * cost.seconds)
        if not self._durables:  # nothing to announce yet, but the first guess needs not be blind
            self._seconds = self._choice(uptime_seconds, cost).seconds

    def committed(self, durable_seconds: float) -> None:
        """Take it into account that the save has become durable, *durable_seconds* after its stall."""
        self._durables.append(durable_seconds)

    def decide(self, uptime_seconds: float) -> Choice | None:
        """Set the interval by what is known now; return the choice if it is noticeably another than the last returned.

        Small changes downwards are not followed at all. Those upwards are, or the budget would be exceeded by them.

        Args:
            uptime_seconds: Since training began.
        """
        cost = self.cost
        if cost is None or not self._durables:
            return None
        choice = self._choice(uptime_seconds, cost)
        is_forced_up = choice.seconds > self._seconds and choice.bound in ("budget", "durable")
        if is_forced_up or _differ(choice.seconds, self._seconds) or self._announced is None:
            self._seconds = choice.seconds
        if self._announced is not None and not _differ(self._seconds, self._announced):
            return None
        self._announced = choice.seconds
        return choice

    def _choice(self, uptime_seconds: float, cost: SaveCost) -> Choice:
        uptime = mean_uptime(self._uptimes, uptime_seconds)
        is_measured_once = len(self._stalls) < 2
        self._limit = budget_limit(uptime, is_measured_once=is_measured_once)
        return choose_interval(cost, uptime, self._budget, is_measured_once=is_measured_once)


def _differ(one: float, other: float) -> bool:
    return not 1 / _NOTICEABLE <= one / other <= _NOTICEABLE
