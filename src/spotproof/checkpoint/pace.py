"""How much longer the steps of a training take while a save is written. Pure: the clock is the caller's."""

import statistics
from collections import deque
from collections.abc import Collection

__all__ = ["Pace"]

_COLD_STEPS = 2
"""The first ones make buffers, start loaders and choose kernels."""
_IDLE_STEPS = 64
_NEEDED_IDLE_STEPS = 8
_WRITING_STEPS = 1024
_SAVES = 5
_OUTLIER = 3.0
"""A step that takes this many times the median counts as that many: an epoch ended, a logger flushed."""


class Pace:
    """Compares the steps that a save fell on with those around it, save by save.

    Of each save: the number of steps that began while it was being written, times how much longer than an undisturbed
    one they took on average. Of these, the median over the last saves. So a step that is much longer than a save is
    counted rightly too, and a trend in the steps (longer sequences, say) is not taken for a cost.
    """

    def __init__(self) -> None:
        self._num_steps = 0
        self._idle: deque[float] = deque(maxlen=_IDLE_STEPS)
        self._writing: list[float] = []
        self._num_writing = 0
        self.is_open = False
        """Whether a save has begun of which not everything is known yet."""
        self._extra: deque[float] = deque(maxlen=_SAVES)

    def step(self, seconds: float, *, is_writing: bool) -> bool:
        """Take one step into account, and return whether that completed what can be known of a save.

        Args:
            seconds: What the step took, without the stall of a save.
            is_writing: Whether a save was being written when it began.
        """
        self._num_steps += 1
        if self._num_steps <= _COLD_STEPS:
            return False
        if is_writing:
            self._num_writing += 1
            if len(self._writing) < _WRITING_STEPS:
                self._writing.append(seconds)
            return False
        self._idle.append(seconds)
        if self.is_open and len(self._idle) >= _NEEDED_IDLE_STEPS:
            self._settle()
            return True
        return False

    def save_begins(self) -> None:
        """Close the account of the save before, and open the next."""
        if self.is_open and self._idle:
            self._settle()
        self._writing, self._num_writing = [], 0
        self.is_open = True

    def _settle(self) -> None:
        if self._num_writing:
            self._extra.append(self._num_writing * (_level(self._writing) - _level(self._idle)))
        self.is_open = False

    @property
    def slowdown_seconds(self) -> float | None:
        """Return what all steps together take longer for one save; None if nothing is known yet."""
        # Each figure may come out below zero by chance; cut off one by one they would add up to a cost.
        return max(0.0, statistics.median(self._extra)) if self._extra else None


def _level(steps: Collection[float]) -> float:
    """Return the mean, because a sum is wanted in the end, of the steps with outliers cut."""
    most = _OUTLIER * statistics.median(steps)
    return statistics.fmean(min(step, most) for step in steps)
