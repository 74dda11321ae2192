"""When a save is due: a step trigger, a time trigger, or both. Pure: the clock is an argument."""

import math
from dataclasses import dataclass
from typing import Literal

from spotproof.errors import SpecError

__all__ = ["DEFAULT_MEAN_UPTIME_SECONDS", "SaveSchedule", "auto_interval_seconds"]

DEFAULT_MEAN_UPTIME_SECONDS = 2 * 3600.0
"""Assumed running time between interruptions before any was seen: AWS's lowest interruption bands are weeks, recorded
traces of busy GPU types have means of one to ten hours."""

_FIRST_AUTO_SECONDS = 10.0
_MIN_AUTO_SECONDS = 1.0
_MAX_AUTO_SECONDS = 900.0
_STALL_BUDGET = 0.02
"""Share of the running time that stalls may take in auto mode."""


def auto_interval_seconds(
    stall_seconds: float, durable_seconds: float, mean_uptime_seconds: float = DEFAULT_MEAN_UPTIME_SECONDS
) -> float:
    """Return the time between saves that minimises expected lost time, within bounds.

    First-order optimum sqrt(2 * C * M) with C the stall, but never so short that stalls take more than 2 % of the time
    or that a save is due before the last is durable, and at most 15 minutes.

    Args:
        stall_seconds: C >= 0, how long one save stops training.
        durable_seconds: From the end of the stall to the commit.
        mean_uptime_seconds: M > 0, mean running time between interruptions.

    Source: Young (1974), doi:10.1145/361147.361115.
    """
    optimum = math.sqrt(2 * stall_seconds * mean_uptime_seconds)
    least = max(_MIN_AUTO_SECONDS, 1.2 * durable_seconds, stall_seconds / _STALL_BUDGET)
    return min(max(optimum, least), max(_MAX_AUTO_SECONDS, least))


@dataclass(kw_only=True)
class SaveSchedule:
    """Decides when the next save is due."""

    every_n_steps: int | None
    """Optimizer steps between saves (>= 1), or None."""
    every_n_seconds: float | Literal["auto"] | None
    """Seconds between saves (> 0), ``"auto"``, or None."""
    last_step: int = 0
    last_at: float = 0.0
    auto_seconds: float = _FIRST_AUTO_SECONDS
    """The interval in auto mode; see :func:`auto_interval_seconds`."""

    def __post_init__(self) -> None:
        if self.every_n_steps is None and self.every_n_seconds is None:
            raise SpecError(
                "Neither every_n_steps nor every_n_seconds is set, so no checkpoint would ever be saved.",
                do='Set one of them; every_n_seconds="auto" tunes itself.',
            )
        if self.every_n_steps is not None and (isinstance(self.every_n_steps, bool) or self.every_n_steps < 1):
            raise SpecError(
                f"every_n_steps={self.every_n_steps} would never save.",
                why="It counts optimizer steps between saves.",
                do="Use 1 or more, or None.",
            )
        seconds = self.every_n_seconds
        if seconds is not None and seconds != "auto" and not (isinstance(seconds, (int, float)) and seconds > 0):
            raise SpecError(
                f"every_n_seconds={seconds!r} is no time between saves.", do='Use seconds above 0, "auto", or None.'
            )

    def is_due(self, step: int, now: float) -> bool:
        """Whether a save should be made at *step*; *now* is in seconds of any steady clock."""
        if self.every_n_steps is not None and step - self.last_step >= self.every_n_steps:
            return True
        if self.every_n_seconds is None:
            return False
        seconds = self.auto_seconds if self.every_n_seconds == "auto" else self.every_n_seconds
        return now - self.last_at >= seconds

    def saved(self, step: int, now: float) -> None:
        """Count from here."""
        self.last_step, self.last_at = step, now
