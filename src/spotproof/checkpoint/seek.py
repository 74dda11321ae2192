"""Seek in the order of torch's own samplers without drawing it index by index.

A shuffled order of a million samples is one permutation: drawn at once, and cut. What is skipped comes back as bytes,
so that the caller can tell by its hash whether this is the order that was; if torch changes how a sampler draws, it is
not, and the caller draws it again from the sampler itself.

Source: torch 2.13.0, ``torch/utils/data/sampler.py``; accelerate 1.15.0, ``data_loader.py``.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, WeightedRandomSampler

__all__ = ["seek"]

_CHUNK = 2**14
_DRAWN = 32
"""Indices that torch's sampler draws at a time, with replacement."""


def seek(sampler: Any, num_draws: int) -> tuple[Iterator[Any], memoryview] | None:
    """Return what *sampler* yields after *num_draws* draws, and the indices before, as int64 one after another.

    Draws from the generators what the sampler would. None if it is no sampler of torch's own with an order of one
    piece; then nothing was drawn.
    """
    if type(sampler) is BatchSampler:
        place = num_draws * sampler.batch_size
        order = _order(sampler.sampler, place)
        if order is None:
            return None
        rest: Any = BatchSampler(_Rest(order, place), sampler.batch_size, sampler.drop_last)
    else:
        place = num_draws
        order = _order(sampler, place)
        if order is None:
            return None
        rest = _Rest(order, place)
    return iter(rest), order[0][:place].numpy().data.cast("B")


_Order = tuple[torch.Tensor, Callable[[], Iterator[int]]]
"""The indices of a pass, or of its beginning; and what gives the others, as the sampler does after these."""


def _nothing() -> Iterator[int]:
    return iter(())


def _order(sampler: Any, num_indices: int) -> _Order | None:
    """Return an order of which at least *num_indices* are drawn, if it has as many."""
    if type(sampler) is SequentialSampler:
        return torch.arange(len(sampler.data_source)), _nothing
    if type(sampler) is WeightedRandomSampler:
        drawn = torch.multinomial(
            sampler.weights, sampler.num_samples, sampler.replacement, generator=sampler.generator
        )
        return drawn, _nothing
    is_seeded = _is_seeded(sampler)
    if type(sampler) is not RandomSampler and not (is_seeded and not sampler.replacement):
        return None
    length = len(sampler.data_source)
    if (sampler.num_samples > length and not sampler.replacement) or length == 0:
        return None
    generator = sampler.generator
    if is_seeded:
        if generator is None:
            generator = sampler.generator = torch.Generator()
        generator.manual_seed(sampler.initial_seed + sampler.epoch)
    elif generator is None:
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        generator = torch.Generator()
        generator.manual_seed(seed)
    if sampler.replacement:
        return _independent(length, sampler.num_samples, num_indices, generator)
    drawn = torch.randperm(length, generator=generator)
    if sampler.num_samples < length:
        drawn = drawn[: sampler.num_samples]

    def end() -> Iterator[int]:
        if sampler.num_samples == length:
            # It draws one more permutation, of which it needs nothing: a generator of the user's own moves on by it.
            torch.randperm(length, generator=generator)
        if is_seeded:
            sampler.set_epoch(sampler.epoch + 1)
        return iter(())

    return drawn, end


def _independent(length: int, num_samples: int, num_indices: int, generator: torch.Generator) -> _Order:
    """With replacement torch draws 32 indices at a time, which come out the same when they are drawn at once."""

    def draw(count: int) -> torch.Tensor:
        return torch.randint(high=length, size=(count,), dtype=torch.int64, generator=generator)

    at_once = min(-(-num_indices // _DRAWN) * _DRAWN, num_samples)

    def rest() -> Iterator[int]:
        for start in range(at_once, num_samples, _DRAWN):
            yield from draw(min(_DRAWN, num_samples - start)).tolist()

    return draw(at_once), rest


def _is_seeded(sampler: Any) -> bool:
    """Whether *sampler* is accelerate's, which seeds a generator anew for each pass. It is not imported for this."""
    module = sys.modules.get("accelerate.data_loader")
    return module is not None and type(sampler) is module.SeedableRandomSampler


class _Rest:
    def __init__(self, order: _Order, start: int) -> None:
        self._order, self._start = order, start

    def __iter__(self) -> Iterator[int]:
        indices, following = self._order
        for start in range(self._start, len(indices), _CHUNK):
            yield from indices[start : start + _CHUNK].tolist()
        yield from following()
