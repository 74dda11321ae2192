"""Exact data order: a DataLoader whose position within a pass can be saved and taken up again.

The loader draws exactly the samples, and its workers exactly the random numbers, that the plain loader would: nothing
is re-seeded. Saved are the generators' states before the pass, the number of batches handed out, and each worker's
generator states after its last of these, which workers send along with their batches. To go on, the order is drawn
again from the saved states and the batches handed out are skipped as indices: no sample is fetched to be skipped.
A running hash of the indices tells whether the drawn order is really the same.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from spotproof.checkpoint.generators import find_generators, load_generators, pack_generators
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.tracked_sampler import OrderMismatch, TrackedSampler
from spotproof.checkpoint.worker_state import RestoringInit, Skippable, TaggingCollate

__all__ = ["OrderMismatch", "can_be_resumed", "resumable_loader"]

T = TypeVar("T")


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
        self._unwrapped: Callable[[], _Unwrapped | None] = lambda: None
        self._order = TrackedSampler(loader._index_sampler, on_mismatch)
        self._worker_rng: dict[int, bytes] = {}
        self._before: dict[str, Any] | None = None
        self._to_resume: dict[str, Any] | None = None
        if self.num_workers > 0:
            self.collate_fn = TaggingCollate(loader.collate_fn)
            self.worker_init_fn = RestoringInit(loader.worker_init_fn)

    @property
    def _index_sampler(self) -> "TrackedSampler":
        return self._order

    def __iter__(self) -> Iterator[Any]:
        state, self._to_resume = self._to_resume, None
        if state is None:
            return self._iterator_from(None)
        # Starting the interrupted pass again draws what was drawn then; it is not to be drawn a second time from the
        # generators that the program goes on with, whether those were restored before or will be later.
        current = pack_rng()
        try:
            return self._iterator_from(state)
        finally:
            unpack_rng(current)

    def _iterator_from(self, state: dict[str, Any] | None) -> Iterator[Any]:
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
        self._unwrapped = weakref.ref(unwrapped)
        return unwrapped

    def _make_iterator(self, leading: int) -> Iterator[Any]:
        if not self.num_workers:
            return super().__iter__()  # type: ignore[misc, no-any-return]
        init, collate, dataset = self.worker_init_fn, self.collate_fn, self.dataset
        assert isinstance(init, RestoringInit)
        assert isinstance(collate, TaggingCollate)
        init.states, collate.leading = dict(self._worker_rng), leading > 0
        try:
            # Workers copy these when they start, which happens in here.
            if leading and (not self._auto_collation or hasattr(dataset, "__getitems__")):  # type: ignore[attr-defined]
                vars(self)["dataset"] = Skippable(dataset)
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

    def begin_reading(self) -> None:
        """Set the data set's generators to the resumed position now, and not only at the next batch."""
        unwrapped = self._unwrapped()
        if unwrapped is not None and unwrapped.before_first is not None:
            unwrapped.before_first()
            unwrapped.before_first = None

    def begin_after(self, state: dict[str, Any]) -> None:
        """Begin the pass that follows the one whose end *state* is from. Persistent workers start anew."""
        load_generators(self.dataset, state["dataset"])


class _Unwrapped(Iterator[Any]):
    """Hand out batches, and keep what came along with them."""

    def __init__(
        self,
        inner: Iterator[Any],
        order: "TrackedSampler",
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
