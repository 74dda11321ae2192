"""Exact data order: a DataLoader whose position within a pass can be saved and taken up again.

The loader draws exactly the samples, and its workers exactly the random numbers, that the plain loader would: nothing
is re-seeded. Saved are the generators' states before the pass, the number of batches handed out, and each worker's
generator states after its last of these, which workers send along with their batches. To go on, the order is drawn
again from the saved states and the batches handed out are skipped as indices: no sample is fetched to be skipped.
A running hash of the indices tells whether the drawn order is really the same.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import xxhash
from torch.utils.data import DataLoader, IterableDataset, Sampler, get_worker_info

from spotproof.checkpoint.generators import (
    find_generators,
    generator_state,
    load_generators,
    pack_generators,
    set_generator_state,
)
from spotproof.checkpoint.rng import pack_rng, unpack_rng

__all__ = ["OrderMismatch", "can_be_resumed", "resumable_loader"]

T = TypeVar("T")
OrderMismatch = Callable[[str], None]
"""Called with words for a person when the order that is drawn now is not the order of the interrupted pass."""

_NO_DIGEST = 0


def can_be_resumed(loader: object) -> bool:
    """Whether :func:`resumable_loader` gives *loader* an exact position: a DataLoader over a map-style dataset that
    has no ``state_dict`` of its own."""
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and not hasattr(loader, "state_dict")
    )


def resumable_loader(loader: "DataLoader[T]", on_mismatch: OrderMismatch | None = None) -> "DataLoader[T]":
    """Return a loader with the same settings, data and random numbers, and with a position that can be saved.

    A loaded state takes effect at the next ``iter()``. It must be loaded before workers are started.

    Args:
        loader: One for which :func:`can_be_resumed` holds. It is not changed.
        on_mismatch: What to do when the order can't be drawn again, for instance because a sampler takes its
            randomness from the clock.
    """
    kind = type(loader)
    cls: Any = type(f"Resumable{kind.__name__}", (_Resumable, kind), {})
    resumable = cls.__new__(cls)
    vars(resumable).update(vars(loader))  # not through __init__, whose arguments a subclass may have changed
    resumable._prepare(loader, on_mismatch)
    return resumable  # type: ignore[no-any-return]


class _Resumable:
    """The part that :func:`resumable_loader` puts in front of the loader's own class."""

    # These belong to DataLoader; named here for the type checker.
    dataset: Any
    generator: "torch.Generator | None"
    num_workers: int
    persistent_workers: bool
    collate_fn: Callable[[Any], Any]
    worker_init_fn: Callable[[int], None] | None
    _iterator: Any

    def _prepare(self, loader: "DataLoader[Any]", on_mismatch: OrderMismatch | None) -> None:
        self._iterator = None
        self._order = _TrackedSampler(loader._index_sampler, on_mismatch)
        self._worker_rng: dict[int, bytes] = {}
        self._before: dict[str, Any] | None = None
        self._to_resume: dict[str, Any] | None = None
        if self.num_workers > 0:
            self.collate_fn = _TaggingCollate(loader.collate_fn)
            self.worker_init_fn = _RestoringInit(loader.worker_init_fn)

    @property
    def _index_sampler(self) -> "_TrackedSampler":
        return self._order

    def __iter__(self) -> Iterator[Any]:
        state, self._to_resume = self._to_resume, None
        keeps_workers = self.persistent_workers and self._iterator is not None
        if not keeps_workers:
            self._worker_rng = {}
            if state is not None:
                _restore_before(self, state["before"])
            self._before = _capture_before(self)
        leading = 0
        self._order.start_pass()
        if state is not None:
            self._worker_rng = dict(state["workers"])
            leading = state["consumed"] % self.num_workers if self.num_workers else 0
            self._order.resume(state, leading)
        inner = self._make_iterator(leading)
        unwrapped = _Unwrapped(inner, self._order, self._worker_rng, self.num_workers, leading)
        if state is not None:
            # Only at the first fetch: a validation set that shares generators with this one may be read before.
            unwrapped.before_first = lambda: load_generators(self.dataset, state["dataset"])
        return unwrapped

    def _make_iterator(self, leading: int) -> Iterator[Any]:
        if not self.num_workers:
            return super().__iter__()  # type: ignore[misc, no-any-return]
        init, collate, dataset = self.worker_init_fn, self.collate_fn, self.dataset
        assert isinstance(init, _RestoringInit)
        assert isinstance(collate, _TaggingCollate)
        init.states, collate.leading = dict(self._worker_rng), leading > 0
        try:
            # Workers copy these when they start, which happens in here.
            if leading and (not self._auto_collation or hasattr(dataset, "__getitems__")):  # type: ignore[attr-defined]
                vars(self)["dataset"] = _Skippable(dataset)
            return super().__iter__()  # type: ignore[misc, no-any-return]
        finally:
            vars(self)["dataset"] = dataset
            init.states, collate.leading = {}, False

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batches handed out so far in this pass."""
        return {
            "before": self._before,
            "workers": dict(self._worker_rng),
            "num_workers": self.num_workers,
            "dataset": pack_generators(find_generators(self.dataset)),
            **self._order.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from *state* at the next ``iter()``."""
        if state["before"] is not None:
            self._to_resume = state

    def begin_after(self, state: dict[str, Any]) -> None:
        """Begin the pass that follows the one whose end *state* is from. Persistent workers start anew."""
        load_generators(self.dataset, state["dataset"])


class _Unwrapped(Iterator[Any]):
    """Hand out batches, and keep what came along with them."""

    def __init__(
        self,
        inner: Iterator[Any],
        order: "_TrackedSampler",
        worker_rng: dict[int, bytes],
        num_workers: int,
        leading: int,
    ) -> None:
        self._inner = inner
        self._order = order
        self._worker_rng = worker_rng
        self._num_workers = num_workers
        self._received = 0
        self._leading = leading
        self.before_first: Callable[[], None] | None = None
        """Called before the first batch is fetched."""

    def __next__(self) -> Any:
        if self.before_first is not None:
            self.before_first()
            self.before_first = None
        if not self._num_workers:
            batch = next(self._inner)
            self._order.consumed_one()
            return batch
        while True:
            batch, rng = next(self._inner)
            worker = self._received % self._num_workers  # torch deals batches to workers in turn
            self._received += 1
            if self._received > self._leading:
                self._worker_rng[worker] = rng
                self._order.consumed_one()
                return batch


class _TrackedSampler(Sampler[Any]):
    """The loader's index source, with a position. Lives in the main process; torch draws from it ahead of time."""

    def __init__(self, inner: Any, on_mismatch: OrderMismatch | None) -> None:
        self._inner = inner
        self._on_mismatch = on_mismatch
        self._resume: tuple[dict[str, Any], int] | None = None
        self.start_pass()

    def start_pass(self) -> None:
        self._first_draw: dict[str, Any] | None = None
        self._consumed = 0
        self._digest = _NO_DIGEST
        self._drawn: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)  # set_epoch, sampler, batch_size, …

    def resume(self, state: dict[str, Any], leading: int) -> None:
        self._resume = (state, leading)

    def consumed_one(self) -> None:
        self._digest = _rolled(self._digest, self._drawn.popleft())
        self._consumed += 1

    def state_dict(self) -> dict[str, Any]:
        if self._resume is not None:  # the iterator was made, but nothing was drawn from it yet
            state, _ = self._resume
            return {name: state[name] for name in ("first_draw", "consumed", "digest", "in_flight")}
        return {
            "first_draw": self._first_draw,
            "consumed": self._consumed,
            "digest": self._digest,
            "in_flight": list(self._drawn),
        }

    def __iter__(self) -> Iterator[Any]:
        # A generator: its body runs at the first draw, as that of torch's own random sampler does.
        resume, self._resume = self._resume, None
        self.start_pass()
        if resume is None or resume[0]["first_draw"] is None:
            self._first_draw = {"rng": pack_rng(), "sampler": _capture(self._inner)}
            yield from self._drawing(iter(self._inner))
            return
        state, leading = resume
        for _ in range(leading):
            yield []  # gives workers the same share of the batches as in the interrupted pass
        self._first_draw = state["first_draw"]
        source, in_flight = self._replay(state)
        for indices in in_flight:
            self._drawn.append(_hashed(indices))
            yield indices
        yield from self._drawing(source)

    def _replay(self, state: dict[str, Any]) -> tuple[Iterator[Any], list[Any]]:
        """Draw the order again up to where the interrupted pass had drawn it; return what follows, and what of it had
        been drawn but not handed out. Leaves the generators as they were: this happens whenever torch first draws."""
        current = pack_rng()
        unpack_rng(state["first_draw"]["rng"])
        _restore(self._inner, state["first_draw"]["sampler"])
        source = iter(self._inner)
        for indices in islice(source, state["consumed"]):
            self._digest = _rolled(self._digest, _hashed(indices))
            self._consumed += 1
        in_flight = list(islice(source, len(state["in_flight"])))
        unpack_rng(current)
        if (self._consumed, self._digest) != (state["consumed"], state["digest"]):
            self._mismatch(
                f"the {state['consumed']} batches already trained on could not be drawn again in their order"
            )
            self._consumed, self._digest = state["consumed"], state["digest"]
        elif [_hashed(indices) for indices in in_flight] != state["in_flight"]:
            self._mismatch("batches that were already prepared could not be drawn again in their order")
        return source, in_flight

    def _drawing(self, source: Iterator[Any]) -> Iterator[Any]:
        for indices in source:
            self._drawn.append(_hashed(indices))
            yield indices

    def _mismatch(self, what: str) -> None:
        if self._on_mismatch is not None:
            source = type(getattr(self._inner, "sampler", self._inner)).__name__
            self._on_mismatch(
                f"The data order is not the one of the interrupted run: {what}. The sampler ({source}) or the data set "
                "does not depend on the random-number generators alone, or has changed. Give the sampler state_dict "
                "and load_state_dict, or let it draw from a seeded generator."
            )


class _TaggingCollate(Generic[T]):
    """In a worker: collate, and send the worker's generator states along."""

    def __init__(self, collate: Callable[[Any], T]) -> None:
        self.collate = collate
        self.leading = False
        self._generators: list[tuple[str, Any]] | None = None

    def __call__(self, samples: Any) -> Any:
        if get_worker_info() is None:
            return self.collate(samples)
        if self.leading and (samples is _NOTHING or (isinstance(samples, list) and not samples)):
            return None, b""
        return self.collate(samples), self._pack()

    def _pack(self) -> bytes:
        if self._generators is None:
            self._generators = find_generators(_worker_dataset())
        rng = pack_rng()
        return len(rng).to_bytes(4, "little") + rng + pack_generators(self._generators)


class _RestoringInit:
    """In a worker that starts: the user's init function, then the generator states to go on from."""

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self.init = init
        self.states: dict[int, bytes] = {}

    def __call__(self, worker_id: int) -> None:
        if self.init is not None:
            self.init(worker_id)
        if worker_id in self.states:
            packed = self.states[worker_id]
            size = int.from_bytes(packed[:4], "little")
            unpack_rng(packed[4 : 4 + size])
            load_generators(_worker_dataset(), packed[4 + size :])


def _worker_dataset() -> Any:
    info = get_worker_info()
    assert info is not None
    return info.dataset._dataset if isinstance(info.dataset, _Skippable) else info.dataset


class _Nothing(list[Any]):
    """Stands for the sample that a leading empty batch does not have."""


_NOTHING = _Nothing()


class _Skippable:
    """A data set that is not asked for the empty batches that come first after a resume."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.__getitems__ = self._getitems if hasattr(dataset, "__getitems__") else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_dataset":
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        return _NOTHING if isinstance(index, list) and not index else self._dataset[index]

    def _getitems(self, indices: Any) -> Any:
        return self._dataset.__getitems__(indices) if len(indices) else []


def _hashed(indices: Any) -> int:
    return xxhash.xxh3_64_intdigest(repr(indices).encode())


def _rolled(digest: int, batch: int) -> int:
    return xxhash.xxh3_64_intdigest(digest.to_bytes(8, "little") + batch.to_bytes(8, "little"))


def _capture_before(loader: Any) -> dict[str, Any]:
    generator = loader.generator
    return {
        "rng": pack_rng(),
        "generator": generator.get_state() if generator is not None else None,
        "dataset": pack_generators(find_generators(loader.dataset)),
    }


def _restore_before(loader: Any, state: dict[str, Any]) -> None:
    unpack_rng(state["rng"])
    if state["generator"] is not None and loader.generator is not None:
        loader.generator.set_state(state["generator"])
    load_generators(loader.dataset, state["dataset"])  # forked workers start from these


def _capture(sampler: Any) -> dict[str, Any]:
    """Return what the order depends on besides the global generators: the sampler's own generators and plain values."""
    if hasattr(sampler, "state_dict") and hasattr(sampler, "load_state_dict"):
        return {"state": sampler.state_dict()}
    found: dict[str, Any] = {}
    for name, value in getattr(sampler, "__dict__", {}).items():
        if isinstance(value, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
            found[name] = {"generator": generator_state(value)}
        elif isinstance(value, Sampler) or name in ("sampler", "batch_sampler"):
            found[name] = {"nested": _capture(value)}
        elif type(value) in (int, float, bool, str, type(None)):
            found[name] = {"value": value}
    return {"attributes": found}


def _restore(sampler: Any, captured: dict[str, Any]) -> None:
    if "state" in captured:
        sampler.load_state_dict(captured["state"])
        return
    for name, entry in captured["attributes"].items():
        ((kind, state),) = entry.items()
        target = getattr(sampler, name, None)
        if kind == "generator":
            set_generator_state(target, state)
        elif kind == "nested":
            _restore(target, state)
        elif kind == "value":
            vars(sampler)[name] = state
