"""When a save is due: a step trigger, a time trigger, or both. Pure: the clock is an argument."""

from dataclasses import dataclass
from typing import Literal

from spotproof.errors import SpecError

__all__ = ["SaveSchedule"]


@dataclass(kw_only=True)
class SaveSchedule:
    """Decides when the next save is due."""

    every_n_steps: int | None
    """Optimizer steps between saves (>= 1), or None."""
    every_n_seconds: float | Literal["auto"] | None
    """Seconds between saves (> 0), ``"auto"``, or None."""
    last_step: int = 0
    last_at: float = 0.0
    auto_seconds: float = 10.0
    """The interval in auto mode; :class:`~spotproof.checkpoint.tuning.IntervalTuner` finds it."""

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
        if self.is_due_by_steps(step):
            return True
        if self.every_n_seconds is None:
            return False
        seconds = self.auto_seconds if self.every_n_seconds == "auto" else self.every_n_seconds
        return now - self.last_at >= seconds

    def is_due_by_steps(self, step: int) -> bool:
        """Whether the number of steps alone makes a save due."""
        return self.every_n_steps is not None and step - self.last_step >= self.every_n_steps

    def saved(self, step: int, now: float) -> None:
        """Count from here."""
        self.last_step, self.last_at = step, now
