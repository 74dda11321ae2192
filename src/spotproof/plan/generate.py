"""Traces that never were: up- and down-times drawn at random, exponential or as scattered as a recorded trace's. Pure.

Recorded up-times scatter 1.4 to 4.8 times as much as their mean, where exponential ones scatter as much as it: most
are short, and a few very long ones make the mean. What is drawn here has the mean, the variation and, as far as that
is possible, the median that it is to have: a mix of two exponentials where the variation is above 1, a gamma
distribution below.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from spotproof.errors import SpecError
from spotproof.plan.spells import Floats, Spells
from spotproof.schedule import Trace

__all__ = ["Lengths", "fit_spells", "generate_trace"]

_SHORTEST_SECONDS: Final = 1e-3
_FEWEST_SPELLS: Final = 4
_SHARES: Final = 400
"""Mixes that are tried to meet the median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """How long up-times, or the times between them, are."""

    mean_seconds: float
    variation: float = 1.0
    """Coefficient of variation; 1 is the exponential."""
    median_seconds: float | None = None
    """Met as well as a mix of two exponentials can; None for a mix in which both bring half of the time."""

    def __post_init__(self) -> None:
        if not (0 < self.mean_seconds < math.inf and 0 < self.variation < math.inf):
            raise SpecError(
                f"Times with a mean of {self.mean_seconds} s and a variation of {self.variation} can't be drawn.",
                do="Use a mean and a variation above 0.",
            )

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Return *count* lengths in seconds, (count,)."""
        if self.variation < 1:
            shape = 1 / self.variation**2
            lengths: Floats = rng.gamma(shape, self.mean_seconds / shape, count)
        else:
            share, short, long = self._mix()
            means = np.where(rng.random(count) < share, short, long)
            lengths = rng.exponential(means)
        return np.maximum(lengths, _SHORTEST_SECONDS)

    def _mix(self) -> tuple[float, float, float]:
        """Return the share of short ones, their mean and that of the long ones."""
        excess = (self.variation**2 - 1) / 2
        if excess < 1e-9:
            return 1.0, self.mean_seconds, self.mean_seconds
        balanced = (1 + math.sqrt(excess / (excess + 1))) / 2
        if self.median_seconds is None:
            return self._mix_of(balanced, excess)
        least = excess / (excess + 1)
        shares = [least + (1 - least) * (index + 0.5) / _SHARES for index in range(_SHARES)]
        mixes = [self._mix_of(share, excess) for share in shares]
        median = self.median_seconds
        return min(mixes, key=lambda mix: abs(_share_above(mix, median) - 0.5))

    def _mix_of(self, share: float, excess: float) -> tuple[float, float, float]:
        short = self.mean_seconds * (1 - math.sqrt((1 - share) / share * excess))
        long = self.mean_seconds * (1 + math.sqrt(share / (1 - share) * excess))
        return share, max(short, _SHORTEST_SECONDS), long


def _share_above(mix: tuple[float, float, float], seconds: float) -> float:
    share, short, long = mix
    return share * math.exp(-seconds / short) + (1 - share) * math.exp(-seconds / long)


def fit_spells(spells: Spells) -> tuple[Lengths, Lengths]:
    """Return how long the up-times of a trace and the times between them are.

    Raises:
        SpecError: Capacity hardly ever changes, so that there is nothing to fit.
    """
    if len(spells.starts) == 0 or math.isinf(spells.lap_seconds):
        raise SpecError(
            "Nothing can be fitted to a trace in which capacity never changes.", do="Use one with reclaims in it."
        )
    if len(spells.starts) < _FEWEST_SPELLS:
        raise SpecError(
            f"{len(spells.starts)} up-times are too few to be fitted.",
            why=f"How they scatter can't be told from fewer than {_FEWEST_SPELLS}.",
            do="Use a longer trace.",
        )
    found = spells.statistics()
    up = Lengths(
        mean_seconds=found.mean_up_seconds,
        variation=max(found.up_variation, 0.05),
        median_seconds=found.median_up_seconds,
    )
    down = Lengths(
        mean_seconds=found.mean_down_seconds,
        variation=max(found.down_variation, 0.05),
        median_seconds=found.median_down_seconds,
    )
    return up, down


def generate_trace(up: Lengths, down: Lengths, num_spells: int, seed: int) -> Trace:
    """Return a trace of *num_spells* up-times, each followed by a time without capacity, of one instance."""
    rng = np.random.default_rng(seed)
    lengths = np.column_stack([up.draw(rng, num_spells), down.draw(rng, num_spells)]).ravel()
    ends = lengths.cumsum()
    starts = [0.0, *ends[:-1].tolist()]
    counts = [1 - index % 2 for index in range(len(starts))]
    return Trace.from_changes(zip(starts, counts, strict=True), float(ends[-1]))
