"""Loaders whose position within a pass can be saved and taken up again, batch for batch and draw for draw.

Nothing is re-seeded or reordered: a resumable loader hands out exactly the batches, and its workers draw exactly the
random numbers, that the loader it is made from would. There are three kinds, by what the data allows:

- map-style data (``order.py``): the order is drawn again, and no sample is fetched to be skipped;
- iterable data sets (``stream.py``): they say where they stand, or are read again up to there;
- loaders of any other make (``foreign.py``): the same, with the loader as a whole.
"""

import copy
import pickle
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe
from torch.utils.data._utils.worker import _IterableDatasetStopIteration

from spotproof.checkpoint.batches import Batches
from spotproof.checkpoint.generators import generator_state, set_generator_state
from spotproof.checkpoint.passes import has_state
from spotproof.checkpoint.pending import Pending
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.source import Source
from spotproof.checkpoint.tracked_sampler import capture_sampler, restore_sampler
from spotproof.checkpoint.worker_state import RestoringInit, TaggingCollate, WorkerState

__all__ = [
    "OnMismatch",
    "ResumableDataLoader",
    "before_pass",
    "restore_before",
    "restore_settings",
    "resumable_loader",
    "settings_state",
]

OnMismatch = Callable[[str], None]
"""Called with words for a person when the data read now is not the data of the interrupted pass."""


def resumable_loader(loader: Any, on_mismatch: OnMismatch | None = None) -> Any:
    """Return a loader with the same settings, data and random numbers, and with a position that can be saved.

    It has ``state_dict`` and ``load_state_dict``. A loaded state takes effect at the next ``iter()``, and must be
    loaded before workers are started. Its ``reads_again`` says whether a resume reads items again to find its place,
    because the data keeps no position.

    Args:
        loader: A DataLoader, or any other iterable of batches. It is not changed.
        on_mismatch: What to do when the data can't be read again as it was, for instance because a sampler takes its
            randomness from the clock.
    """
    from spotproof.checkpoint.fabric import is_of_fabric, resumable_fabric_loader
    from spotproof.checkpoint.foreign import ForeignLoader
    from spotproof.checkpoint.order import ResumableOrder
    from spotproof.checkpoint.stream import ResumableStream

    if isinstance(loader, (ResumableDataLoader, ForeignLoader)):
        return loader
    if is_of_fabric(loader):
        return resumable_fabric_loader(loader, on_mismatch)
    kind = type(loader)
    is_plain = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterDataPipe)
    is_of_torchdata = is_plain and _iterates_as_torchdata(kind)
    if not is_plain or (hasattr(loader, "state_dict") and not is_of_torchdata):
        return ForeignLoader(loader, on_mismatch)
    front = ResumableStream if isinstance(loader.dataset, IterableDataset) else ResumableOrder
    cls: Any = type(
        f"Resumable{kind.__name__}", (front, _PlainIterators, kind) if is_of_torchdata else (front, kind), {}
    )
    resumable = cls.__new__(cls)
    vars(resumable).update(vars(loader))  # not through __init__, whose arguments a subclass may have changed
    resumable._prepare(loader, on_mismatch)
    return resumable


class _PlainIterators:
    """Goes around torchdata's own iterators, which hand out the same and forget more: workers' generators, that a
    worker's share has ended (torchdata 0.11)."""

    __iter__ = DataLoader.__iter__
    _get_iterator = DataLoader._get_iterator


def _iterates_as_torchdata(kind: type) -> bool:
    module = sys.modules.get("torchdata.stateful_dataloader")
    if module is None or not issubclass(kind, module.StatefulDataLoader):
        return False
    names = ("__iter__", "_get_iterator", "state_dict", "load_state_dict")
    return all(getattr(kind, name) is getattr(module.StatefulDataLoader, name) for name in names)


class ResumableDataLoader(Pending, ABC):
    """The part that :func:`resumable_loader` puts in front of a DataLoader's own class."""

    # These belong to DataLoader; named here for the type checker.
    dataset: Any
    generator: "torch.Generator | None"
    num_workers: int
    persistent_workers: bool
    collate_fn: Callable[[Any], Any]
    worker_init_fn: Callable[[int], None] | None
    _auto_collation: bool
    _iterator: Any

    reads_again = False

    @property
    def kind_of_data(self) -> str:
        """What to call the data in a message."""
        return type(self.dataset).__name__

    def _prepare(self, loader: "DataLoader[Any]", on_mismatch: OnMismatch | None) -> None:
        self._iterator = None
        self._on_mismatch = on_mismatch or (lambda said: None)
        self._batches: Callable[[], Batches | None] = lambda: None
        self._workers: dict[int, WorkerState] = {}
        """States of the workers after their last batches that were handed out."""
        self._arrived: dict[int, WorkerState] = {}
        """The same of workers that persist, after their last batches that arrived."""
        self._watched: Callable[[], Any] = lambda: None
        self._before: dict[str, Any] | None = None
        self._to_resume = self._to_follow = None
        self._is_over = False
        self.source = Source(loader.dataset, loader.collate_fn)
        if self.num_workers > 0:
            self.collate_fn = TaggingCollate(loader.collate_fn, self.source)
            self.worker_init_fn = RestoringInit(loader.worker_init_fn, self.source)

    def __iter__(self) -> Iterator[Any]:
        state, self._to_resume = self._to_resume, None
        followed, self._to_follow = self._to_follow, None
        self._is_over = False
        if state is not None:
            # Starting the interrupted pass again draws what was drawn then; it is not to be drawn a second time from
            # the generators that the program goes on with, whether those were restored before or will be later.
            current = pack_rng()
            try:
                batches = self._iterator_from(state)
            finally:
                unpack_rng(current)
        elif followed is not None:
            batches = self._iterator_after(followed)
        else:
            batches = self._iterator_from(None)
        self._batches = weakref.ref(batches)
        return batches

    def _iterator_from(self, state: dict[str, Any] | None) -> "Batches":
        keeps_workers = self.persistent_workers and self._iterator is not None
        if not keeps_workers:
            self._workers = {}
            if state is not None:
                restore_before(self, state["before"], self.source)
            self._before = before_pass(self, self.source)
        if state is None:
            return self._begin(0, None)
        if state["num_workers"] != self.num_workers:
            self._on_mismatch(
                f"The training data is read by {self.num_workers} loader workers, and was by {state['num_workers']} "
                "when the run was interrupted: augmentation, and data that is dealt to workers, will not be the same. "
                f"Use num_workers={state['num_workers']} until the run is done."
            )
            return self._begin(0, self._of_other_workers(state))
        self._workers = _unpacked(state["workers"])
        return self._begin(state["next_worker"], state)

    def _iterator_after(self, state: dict[str, Any]) -> "Batches":
        if not self.persistent_workers:
            self._workers, self._before = {}, before_pass(self, self.source)
            return self._begin(0, self._following(state))
        # Workers that persist were seeded in the first pass, and nothing is drawn for them now.
        self._before, self._workers = state["before"], _unpacked(state["workers"])
        generator = self.generator
        vars(self)["generator"] = torch.Generator()
        try:
            return self._begin(0, self._following(state))
        finally:
            vars(self)["generator"] = generator

    def _following(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """Return what the pass after the one that *state* is from needs of it to begin."""
        return None

    @abstractmethod
    def _of_other_workers(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """Return what of *state* still holds where it is from another number of workers."""

    @abstractmethod
    def _begin(self, leading: int, state: dict[str, Any] | None) -> "Batches":
        """Return the batches of a pass: from *state* on, or all; *leading* stand-ins go ahead, for workers' turns."""

    def _make_iterator(self, dataset: Any, leading: int) -> Iterator[Any]:
        """Return the loader's own iterator, reading from *dataset* instead, whose workers take over their states."""
        own_dataset, init, collate = self.dataset, self.worker_init_fn, self.collate_fn
        if isinstance(init, RestoringInit) and isinstance(collate, TaggingCollate):
            init.states, collate.leading = dict(self._workers), leading > 0
        vars(self)["dataset"] = dataset
        try:
            # Workers copy all this when they start, which happens in here.
            inner = super().__iter__()  # type: ignore[misc]
        finally:
            vars(self)["dataset"] = own_dataset
            if isinstance(init, RestoringInit) and isinstance(collate, TaggingCollate):
                init.states, collate.leading = {}, False
        if self.persistent_workers:
            if inner is self._watched():
                # What they had prepared of the last pass and nobody took has arrived by now.
                self._workers |= self._arrived
            self._watch(inner)
        return cast("Iterator[Any]", inner)

    def _watch(self, inner: Any) -> None:
        # What inner is given here must not lead back to it: freed as a part of a cycle, torch can't tell its workers to
        # end, and waits five seconds for each.
        arrived: dict[int, WorkerState] = {}
        watched, get_data = weakref.ref(inner), type(inner)._get_data
        self._arrived, self._watched = arrived, watched

        def get_and_note() -> Any:
            got = get_data(watched())
            data = got[1]
            if isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[1], (tuple, list)):
                worker, state = data[1]
                if state is not None:
                    arrived[worker] = state
            return got

        inner._get_data = get_and_note

    @abstractmethod
    def _received(self, worker: int | None, state: WorkerState | None) -> None:
        """Take note of a batch that is handed out, and of what came along with it if it is from a worker."""

    def _state_dict(self) -> dict[str, Any]:
        return {
            "before": self._before,
            # What workers sent was pickled by them; a checkpoint holds plain values.
            "workers": {
                worker: {"rng": state.rng, "position": pickle.loads(state.position) if state.position else None}
                for worker, state in self._workers.items()
            },
            "num_workers": self.num_workers,
            "source": self.source.pack(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batches handed out so far in this pass."""
        batches = self._batches()
        return self._state_dict() if batches is None or batches.resumed is None else batches.resumed

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from *state* at the next ``iter()``."""
        if "before" not in state:
            self._on_mismatch(
                f"The position of the {type(self).__name__} was saved by another program: the pass begins anew."
            )
        elif state["before"] is not None:
            self._to_resume = state

    def begin_reading(self) -> None:
        """Set what the data draws from to the resumed position now, and not only at the next batch."""
        batches = self._batches()
        if batches is not None:
            batches.prepare()

    def end_state(self) -> dict[str, Any]:
        """Return the position at the end of a pass, from which the next pass can be begun in another process."""
        inner = self._watched()
        if inner is not None and not inner._shutdown:
            _await_workers(inner)
            self._workers |= self._arrived
        return {**self.state_dict(), **settings_state(self)}

    def begin_after(self, state: dict[str, Any]) -> None:
        """Begin, at the next ``iter()``, the pass that follows the one whose :meth:`end_state` *state* is."""
        restore_settings(self, state)
        if state["before"] is not None:
            self._to_follow = state


def settings_state(loader: Any) -> dict[str, Any]:
    """Return what the next pass of a DataLoader depends on besides the global generators and its workers."""
    generator = loader.generator
    return {
        "source": _source_of(loader).pack(),
        "data": copy.deepcopy(loader.dataset.state_dict()) if _is_stateful_map(loader.dataset) else None,
        "generator": generator_state(generator) if isinstance(generator, torch.Generator) else None,
        "sampler": capture_sampler(loader._index_sampler),
    }


def restore_settings(loader: Any, state: dict[str, Any]) -> None:
    """Set what :func:`settings_state` returned."""
    if state["data"] is not None and _is_stateful_map(loader.dataset):
        loader.dataset.load_state_dict(copy.deepcopy(state["data"]))
    _source_of(loader).load(state["source"])
    if state["generator"] is not None and loader.generator is not None:
        set_generator_state(loader.generator, state["generator"])
    restore_sampler(loader._index_sampler, state["sampler"])


def _source_of(loader: Any) -> Source:
    return loader.source if isinstance(loader, ResumableDataLoader) else Source(loader.dataset, loader.collate_fn)


def _is_stateful_map(dataset: Any) -> bool:
    return has_state(dataset) and not isinstance(dataset, IterableDataset)


def _await_workers(inner: Any) -> None:
    """Take what workers were asked for and nobody took, as torch does with batches that arrive out of turn."""
    while any(len(info) == 1 and inner._workers_status[info[0]] for info in inner._task_info.values()):
        index, data = inner._get_data()
        inner._tasks_outstanding -= 1
        if isinstance(data, _IterableDatasetStopIteration):
            inner._workers_status[data.worker_id] = False  # what else it was asked for it will not answer
        else:
            inner._task_info[index] += (data,)


def _unpacked(workers: dict[int, dict[str, Any]]) -> dict[int, WorkerState]:
    return {
        worker: WorkerState(state["rng"], pickle.dumps(state["position"]) if state["position"] is not None else b"")
        for worker, state in workers.items()
    }


def before_pass(loader: Any, source: Source) -> dict[str, Any]:
    """Return what the beginning of a pass depends on."""
    generator = getattr(loader, "generator", None)
    return {
        "rng": pack_rng(),
        "generator": generator.get_state() if isinstance(generator, torch.Generator) else None,
        "source": source.pack(),
    }


def restore_before(loader: Any, state: dict[str, Any], source: Source) -> None:
    """Set what :func:`before_pass` returned."""
    unpack_rng(state["rng"])
    generator = getattr(loader, "generator", None)
    if state["generator"] is not None and isinstance(generator, torch.Generator):
        generator.set_state(state["generator"])
    source.load(state["source"])  # forked workers start from this
