"""How many instances were available over time: a step function that can be asked both ways. Pure."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Trace"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Available instances over time; it repeats from its start when it ends."""

    starts: tuple[float, ...]
    """From when each count holds: seconds, the first 0, rising."""
    available: tuple[int, ...]
    """The counts."""
    length_seconds: float
    """Where the record ends, behind the last start; inf if its one count holds for ever."""

    @classmethod
    def from_ticks(cls, gap_seconds: float, counts: Sequence[int]) -> "Trace":
        """Return the trace of counts that were taken every *gap_seconds*."""
        ticks = [(index * gap_seconds, count) for index, count in enumerate(counts)]
        return cls.from_changes(ticks, gap_seconds * len(counts))

    @classmethod
    def from_changes(cls, changes: Iterable[tuple[float, int]], length_seconds: float) -> "Trace":
        """Return the trace of *changes*, ``(seconds, count from then on)``, in the order of time; of several at one
        time the last counts, and before the first there are no instances. What begins at the end is cut off."""
        kept: list[tuple[float, int]] = [(0.0, 0)]
        for seconds, count in changes:
            if seconds == kept[-1][0]:
                kept.pop()
            if kept and (kept[-1][1] == count or 0 < length_seconds <= seconds):
                continue
            kept.append((seconds, count))
        if len(kept) == 1:
            length_seconds = math.inf
        starts, counts = zip(*kept, strict=True)
        return cls(starts=starts, available=counts, length_seconds=length_seconds)

    def available_at(self, seconds: float) -> int:
        """Return the number of instances available *seconds* after the trace's start."""
        return self.available[self._index(self._place(seconds))]

    def seconds_until(self, seconds: float, num_instances: int, *, wanted: bool) -> float:
        """Return the seconds from *seconds* on until *num_instances* are (*wanted*) or are not available; inf if never
        so."""
        place = self._place(seconds)
        index, size = self._index(place), len(self.available)
        for ahead in range(size + 1):
            laps, entry = divmod(index + ahead, size)
            if (self.available[entry] >= num_instances) != wanted:
                continue
            if ahead == 0:
                return 0.0
            return (laps * self.length_seconds if laps else 0.0) + self.starts[entry] - place
        return math.inf

    def shares(self, num_instances: int, num_parts: int) -> list[float]:
        """Return, of each of *num_parts* equal parts of the record, how much of it has *num_instances* or more."""
        if math.isinf(self.length_seconds):
            return [float(self.available[0] >= num_instances)] * num_parts
        width = self.length_seconds / num_parts
        found = [0.0] * num_parts
        ends = [*self.starts[1:], self.length_seconds]
        for start, end, count in zip(self.starts, ends, self.available, strict=True):
            if count >= num_instances:
                first, last = int(start / width), min(int(end / width), num_parts - 1)
                for part in range(first, last + 1):
                    found[part] += max(0.0, min(end, (part + 1) * width) - max(start, part * width)) / width
        return [min(share, 1.0) for share in found]

    def _place(self, seconds: float) -> float:
        return seconds if math.isinf(self.length_seconds) else seconds % self.length_seconds

    def _index(self, place: float) -> int:
        return bisect_right(self.starts, place) - 1
