"""Seek in the order of torch's own samplers without drawing it index by index.

A shuffled order of a million samples is one permutation: drawn at once, and cut. What is skipped comes back as bytes,
so that the caller can tell by its hash whether this is the order that was; if torch changes how a sampler draws, it is
not, and the caller draws it again from the sampler itself.

Source: torch 2.13.0, ``torch/utils/data/sampler.py``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, WeightedRandomSampler

__all__ = ["seek"]

_CHUNK = 2**14


def seek(sampler: Any, num_draws: int) -> tuple[Iterator[Any], memoryview] | None:
    """Return what *sampler* yields after *num_draws* draws, and the indices before, as int64 one after another.

    Draws from the generators what the sampler would. None if it is no sampler of torch's own with an order of one
    piece; then nothing was drawn.
    """
    if type(sampler) is BatchSampler:
        order = _order(sampler.sampler)
        if order is None:
            return None
        place = num_draws * sampler.batch_size
        rest: Any = BatchSampler(_Rest(order, place), sampler.batch_size, sampler.drop_last)
    else:
        order = _order(sampler)
        if order is None:
            return None
        place = num_draws
        rest = _Rest(order, place)
    return iter(rest), order[0][:place].numpy().data.cast("B")


def _nothing() -> None:
    pass


_Order = tuple[torch.Tensor, Callable[[], object]]
"""The indices of a pass, and what the sampler does after the last."""


def _order(sampler: Any) -> _Order | None:
    if type(sampler) is SequentialSampler:
        return torch.arange(len(sampler.data_source)), _nothing
    if type(sampler) is WeightedRandomSampler:
        drawn = torch.multinomial(
            sampler.weights, sampler.num_samples, sampler.replacement, generator=sampler.generator
        )
        return drawn, _nothing
    if type(sampler) is not RandomSampler or sampler.replacement:
        return None
    length = len(sampler.data_source)
    if sampler.num_samples > length or length == 0:
        return None
    generator = sampler.generator
    if generator is None:
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        generator = torch.Generator()
        generator.manual_seed(seed)
    drawn = torch.randperm(length, generator=generator)
    if sampler.num_samples < length:
        return drawn[: sampler.num_samples], _nothing
    # It draws one more permutation, of which it needs nothing: a generator of the user's own moves on by it.
    return drawn, lambda: torch.randperm(length, generator=generator)


class _Rest:
    def __init__(self, order: _Order, start: int) -> None:
        self._order, self._start = order, start

    def __iter__(self) -> Iterator[int]:
        indices, end = self._order
        for start in range(self._start, len(indices), _CHUNK):
            yield from indices[start : start + _CHUNK].tolist()
        end()
