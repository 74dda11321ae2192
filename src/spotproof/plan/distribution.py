"""A distribution of any number of values in the same memory: counts in bins that are 0.1 % wide. Pure."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from spotproof.plan.spells import Floats

__all__ = ["Distribution"]

_WIDTH: Final = 1e-3
_LEAST, _MOST = 1e-6, 1e12
_MOST_COUNT: Final = 0.5 / _WIDTH
"""Below it a bin holds one whole number at most."""
_FIRST: Final = math.log(_LEAST)
_BINS: Final = math.ceil((math.log(_MOST) - _FIRST) / _WIDTH)


class Distribution:
    """Values from 0 to infinity, told by quantiles that are right to a thousandth of their value, and exact where that
    is no more work: of one value many times, the least and the most, and of counts."""

    def __init__(self) -> None:
        self.count = 0
        self._zeros = self._infinite = 0
        self._sum = 0.0
        self._least, self._most = math.inf, 0.0
        self._is_whole = True
        self._bins = np.zeros(_BINS, dtype=np.int64)

    def add(self, values: Floats) -> None:
        """Take in *values* (any,): 0 and above, inf allowed."""
        self.count += len(values)
        is_infinite = np.isinf(values)
        is_zero = values < _LEAST
        self._infinite += int(is_infinite.sum())
        self._zeros += int(is_zero.sum())
        others = values[~is_infinite & ~is_zero]
        self._sum += float(others.sum())
        self._least = min(self._least, float(others.min(initial=math.inf)))
        self._most = max(self._most, float(others.max(initial=0.0)))
        self._is_whole = self._is_whole and bool((others == np.floor(others)).all())
        places = ((np.log(others) - _FIRST) / _WIDTH).astype(np.intp)
        self._bins += np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS)

    @property
    def mean(self) -> float:
        """Return the exact mean; inf if a value is."""
        if self._infinite:
            return math.inf
        return self._sum / self.count if self.count else math.nan

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return the values that *shares* of all are at or below."""
        upto = self._zeros + np.cumsum(self._bins)
        found = []
        for share in shares:
            rank = max(1, math.ceil(share * self.count - 1e-9))
            if not self.count:
                found.append(math.nan)
            elif rank <= self._zeros:
                found.append(0.0)
            elif rank > upto[-1]:
                found.append(math.inf)
            else:
                value = math.exp(_FIRST + (int(upto.searchsorted(rank)) + 0.5) * _WIDTH)
                value = min(max(value, self._least), self._most)
                found.append(float(round(value)) if self._is_whole and value < _MOST_COUNT else value)
        return found
