"""When a job of n instances can run: the up-times of a trace, in arrays that many jobs ask at once. Pure."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spotproof.schedule import Trace

__all__ = ["Floats", "SpellStatistics", "Spells", "spells_of"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpellStatistics:
    """What a trace is like."""

    availability: float
    """Share of the time, 0 to 1."""
    num_spells: int
    """Up-times in the record."""
    mean_up_seconds: float
    """inf if capacity never goes, 0 if it never comes."""
    median_up_seconds: float
    up_variation: float
    """Coefficient of variation, standard deviation by mean: 1 for the exponential, 1.4 to 4.8 in recorded traces."""
    mean_down_seconds: float
    median_down_seconds: float
    down_variation: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spells:
    """The up-times of one lap of a trace, and the lap's length. The trace repeats."""

    starts: Floats
    """(spells,), seconds after *origin*, rising; the first is 0."""
    ends: Floats
    """(spells,): each above its start, and below the next one. inf for capacity that never goes."""
    lap_seconds: float
    origin_seconds: float
    """Where in the trace the lap begins: at an up-time's start, so that none reaches over a lap's end."""

    @property
    def up_seconds(self) -> Floats:
        """Return the lengths of the up-times, (spells,)."""
        lengths: Floats = self.ends - self.starts
        return lengths

    @property
    def down_seconds(self) -> Floats:
        """Return the lengths of the times between them, (spells,)."""
        following = np.append(self.starts[1:], self.lap_seconds) if len(self.starts) else self.starts
        lengths: Floats = following - self.ends
        return lengths

    def next_up(self, at: Floats) -> tuple[Floats, Floats]:
        """Return when capacity is next there and when it goes again, both (jobs,).

        Args:
            at: (jobs,) seconds after the trace's start. Where capacity is there at that moment, *up* is *at*.
        """
        if not len(self.starts):
            never = np.full_like(at, math.inf)
            return never, never
        if math.isinf(self.lap_seconds):
            return at, np.full_like(at, math.inf)
        place = at - self.origin_seconds
        lap = np.floor(place / self.lap_seconds)
        place -= lap * self.lap_seconds
        index = self.ends.searchsorted(place, side="right")
        is_over = index == len(self.ends)  # behind the lap's last up-time
        index[is_over] = 0
        # Where the trace's time stands at the lap's start; up-times are told in the trace's own time.
        base = at - place + is_over * self.lap_seconds
        up = np.maximum(self.starts[index] + base, at)
        # A rounded end must not lie before the moment that was asked for: time would stand still.
        return up, np.maximum(self.ends[index] + base, np.nextafter(up, math.inf))

    def statistics(self) -> SpellStatistics:
        """Return what the record is like."""
        if math.isinf(self.lap_seconds):
            is_up = len(self.starts) > 0
            up, down = (math.inf, 0.0) if is_up else (0.0, math.inf)
            return SpellStatistics(
                availability=float(is_up),
                num_spells=int(is_up),
                mean_up_seconds=up,
                median_up_seconds=up,
                up_variation=0.0,
                mean_down_seconds=down,
                median_down_seconds=down,
                down_variation=0.0,
            )
        ups, downs = self.up_seconds, self.down_seconds
        return SpellStatistics(
            availability=float(ups.sum() / self.lap_seconds),
            num_spells=len(ups),
            mean_up_seconds=float(ups.mean()),
            median_up_seconds=float(np.median(ups)),
            up_variation=float(ups.std() / ups.mean()),
            mean_down_seconds=float(downs.mean()),
            median_down_seconds=float(np.median(downs)),
            down_variation=float(downs.std() / downs.mean()),
        )


def spells_of(trace: Trace, num_instances: int = 1) -> Spells:
    """Return the times in which *num_instances* or more are available: all of them, or none is of use."""
    is_up = np.asarray(trace.available) >= num_instances
    starts = np.asarray(trace.starts, dtype=np.float64)
    if is_up.all() or not is_up.any():
        is_ever = bool(is_up.any())
        return Spells(
            starts=np.zeros(int(is_ever)),
            ends=np.full(int(is_ever), math.inf),
            lap_seconds=math.inf,
            origin_seconds=0.0,
        )
    rises = np.flatnonzero(is_up & ~np.roll(is_up, 1))
    origin = float(starts[rises[0]])
    falls = np.flatnonzero(~is_up & np.roll(is_up, 1))
    begins = np.sort((starts[rises] - origin) % trace.length_seconds)
    ends = np.sort((starts[falls] - origin) % trace.length_seconds)
    return Spells(starts=begins, ends=ends, lap_seconds=trace.length_seconds, origin_seconds=origin)
