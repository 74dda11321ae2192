"""What a loader reads with, its data set and its collate function, as one state.

That is the generators they lead to, and the plain attributes that changed since the loader was made: the epoch that a
callback tells a data set, labels that training corrects, what a collate function counts. What the user edits between
two attempts keeps its new value.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import IterableDataset, get_worker_info

from spotproof.checkpoint.generators import GENERATORS, find_generators, load_generators, pack_generators
from spotproof.checkpoint.holders import assign, held_by, is_of_user
from spotproof.checkpoint.passes import has_state
from spotproof.checkpoint.small_value import SmallValue, encode_small

__all__ = ["Source"]

T = TypeVar("T")
_NUM_WATCHED = 3
_MAX_DEPTH = 4
_MAX_HOLDERS = 64
_SCALARS = frozenset({int, float, bool, str, type(None)})


class Source:
    """The data set and the collate function of a loader.

    Where it goes to a loader's worker along with them, it is of the worker's own copies.
    """

    def __init__(self, dataset: Any, collate: Any = None) -> None:
        """Note how things are, before anything is read."""
        self._roots = {"dataset": dataset, "collate_fn": collate}
        self._is_stream = isinstance(dataset, IterableDataset)
        self._own_counts: set[str] = set()
        self._num_watched = 0
        self._initial = {path: value.fingerprint() for path, value in self._values()}
        self._generators: list[tuple[str, Any]] | None = None
        """Of a worker, which sends their states with each batch."""

    def fetch(self, fetch: Callable[[], T]) -> T:
        """Return what *fetch* does, and learn from the first few which numbers of its own the data set counts then.

        Such a count says what this process has done, and begins anew with it.
        """
        if self._num_watched == _NUM_WATCHED:
            return fetch()
        self._num_watched += 1
        before = self._counts()
        fetched = fetch()
        self._own_counts.update(path for path, value in self._counts().items() if before.get(path, value) != value)
        return fetched

    def _counts(self) -> dict[str, int]:
        return {
            f"{place}.{name}": value
            for place, holder in self._holders()
            if place.startswith("dataset")
            for name, value in held_by(holder).items()
            if type(value) is int
        }

    def pack(self) -> bytes:
        """Return the state; of a worker only generators and what the collate function counts, cheap for each batch."""
        if get_worker_info() is None:
            generators = find_generators(self._roots)
        elif self._generators is None:
            generators = self._generators = find_generators(self._roots)
        else:
            generators = self._generators
        changed = {
            path: value.to_json() for path, value in self._values() if self._initial.get(path) != value.fingerprint()
        }
        return json.dumps([pack_generators(generators).decode(), changed]).encode()

    def load(self, packed: bytes) -> str:
        """Set what :meth:`pack` returned; return "" or, if a generator is not there to be set, words that say so."""
        generators, changed = json.loads(packed)
        holders = dict(self._holders()) if changed else {}
        for path, saved in changed.items():
            place, _, name = path.rpartition(".")
            if place in holders:
                assign(holders[place], name, SmallValue.from_json(saved))
        lost = load_generators(self._roots, generators.encode())
        return f"its generator {lost[0]} is not there yet when the resume begins" if lost else ""

    def _values(self) -> Iterator[tuple[str, SmallValue]]:
        is_in_worker = get_worker_info() is not None
        for place, holder in self._holders():
            for name, value in held_by(holder).items():
                if f"{place}.{name}" in self._own_counts:
                    continue
                if is_in_worker and type(value) not in _SCALARS:
                    continue
                if (taken := encode_small(value)) is not None:
                    yield f"{place}.{name}", taken

    def _holders(self) -> Iterator[tuple[str, Any]]:
        """Yield the objects of the user's that may change: not what has a state of its own, nor models."""
        queue: deque[tuple[str, Any, int]] = deque((name, root, 0) for name, root in self._roots.items())
        if get_worker_info() is not None and not self._is_stream:
            queue.popleft()  # of the data set the main process has its own, which is what training can change
        seen: set[int] = set()
        while queue and len(seen) < _MAX_HOLDERS:
            place, value, depth = queue.popleft()
            if id(value) in seen or depth > _MAX_DEPTH or not _is_holder(value) or has_state(value):
                continue
            seen.add(id(value))
            if is_of_user(type(value)):
                yield place, value
            for name, part in held_by(value).items():
                parts = (
                    enumerate(part) if isinstance(part, (list, tuple)) and len(part) <= _MAX_HOLDERS else [("", part)]
                )
                queue.extend((f"{place}.{name}{index}", item, depth + 1) for index, item in parts)


def _is_holder(value: Any) -> bool:
    """Whether *value* is an object with attributes that belong to the data; a whole training hangs on the others."""
    is_other = isinstance(value, (*GENERATORS, torch.Tensor, torch.nn.Module, type)) or hasattr(value, "trainer")
    return not is_other and not callable(getattr(value, "__code__", None)) and bool(held_by(value))
