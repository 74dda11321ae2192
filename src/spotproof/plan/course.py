"""A price as it moved: a step function of time that begins again when it ends. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spotproof.plan.spells import Floats

__all__ = ["Course", "course_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """A price against its mean over time, so that 1 is the mean; the price of n machines moves as that of one."""

    starts: Floats
    """(changes,) seconds from when on each factor holds; the first is 0, rising."""
    factors: Floats
    """(changes,), above 0."""
    length_seconds: float

    @property
    def least(self) -> float:
        """Return the smallest factor."""
        return float(self.factors.min())

    @property
    def most(self) -> float:
        """Return the largest factor."""
        return float(self.factors.max())

    def at(self, seconds: Floats) -> Floats:
        """Return the factor at each of *seconds* (jobs,) after the course's start."""
        found: Floats = self.factors[self._index(seconds % self.length_seconds)]
        return found

    def next_change(self, seconds: Floats) -> Floats:
        """Return when, after each of *seconds* (jobs,), the next factor begins to hold."""
        place = seconds % self.length_seconds
        following = np.append(self.starts[1:], self.length_seconds)[self._index(place)]
        # A rounded change must not lie at the moment that was asked for: time would stand still.
        later: Floats = np.maximum(seconds - place + following, np.nextafter(seconds, math.inf))
        return later

    def weighted_seconds(self, begin: Floats, end: Floats) -> Floats:
        """Return the time from *begin* to *end*, both (jobs,), each second counted with its factor."""
        weighted: Floats = self._total(end) - self._total(begin)
        return weighted

    def _total(self, seconds: Floats) -> Floats:
        laps, place = np.divmod(seconds, self.length_seconds)
        lengths = np.diff(self.starts, append=self.length_seconds) * self.factors
        before = np.concatenate([[0.0], np.cumsum(lengths)])
        index = self._index(place)
        total: Floats = laps * before[-1] + before[index] + (place - self.starts[index]) * self.factors[index]
        return total

    def _index(self, place: Floats) -> "np.ndarray[tuple[int, ...], np.dtype[np.intp]]":
        return np.asarray(self.starts.searchsorted(place, side="right") - 1)


def course_of(zones: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[float, Course | None]:
    """Return the mean over time of a recorded price, and its course; None if it never moved.

    Args:
        zones: Of each zone the changes, ``(seconds, USD per hour from then on)``, in any order; of several zones the
            median of those whose price is known at the time.
    """
    sorted_zones = [sorted(changes) for changes in zones.values()]
    times = np.unique([seconds for changes in sorted_zones for seconds, _ in changes])
    table = np.full((len(sorted_zones), len(times)), math.nan)
    for row, changes in zip(table, sorted_zones, strict=True):
        places = np.searchsorted([seconds for seconds, _ in changes], times, side="right") - 1
        amounts = np.array([usd for _, usd in changes])
        row[places >= 0] = amounts[places[places >= 0]]
    prices = np.nanmedian(table, axis=0)
    is_change = np.append(True, np.diff(prices) != 0)
    times, prices = times[is_change], prices[is_change]
    if len(times) == 1:
        return float(prices[0]), None
    starts = times - times[0]
    # How long the last price held is not recorded: as long as one does on average.
    length = float(starts[-1] + starts[-1] / (len(starts) - 1))
    mean = float((np.diff(starts, append=length) * prices).sum() / length)
    return mean, Course(starts=starts, factors=prices / mean, length_seconds=length)
