"""The part of a resumable loader that runs in its worker processes: generator states and positions go along with
batches, and come back when a worker starts."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch.utils.data import get_worker_info

from spotproof.checkpoint.passes import Passes, has_state
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.source import Source
from spotproof.errors import UnsafeState

__all__ = ["RestoringInit", "Skippable", "Stream", "TaggingCollate", "WorkerState"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerState:
    """Where a worker stood after a batch."""

    rng: bytes
    """Its generators, and the state of what it reads with."""
    position: bytes = b""
    """Of its data set, if that has a state: pickled, as everything is that comes from a worker."""
    said: str = ""
    """What went wrong when it went on from a position, in words."""


class TaggingCollate(Generic[T]):
    """In a worker: collate, and send the worker's number and its state along."""

    def __init__(self, collate: Callable[[Any], T], source: Source) -> None:
        self.collate = collate
        self.leading = False
        self._source = source

    def __call__(self, samples: Any) -> Any:
        info: Any = get_worker_info()
        if info is None:
            return self.collate(samples)
        if self.leading and _is_nothing(samples):
            return None, (info.id, None)
        batch = self.collate(samples)
        packed = _pack(self._source)
        # At once, and not when torch's own thread pickles the batch: by then the data set has moved on.
        if _stream is not None:
            return batch, (
                info.id,
                WorkerState(packed, _pickled(_stream.position(), info.dataset), _stream.said),
            )
        if has_state(info.dataset):
            return batch, (info.id, WorkerState(packed, _pickled(info.dataset.state_dict(), info.dataset), _said))
        return batch, (info.id, WorkerState(packed, said=_said))


def _pack(source: Source) -> bytes:
    rng = pack_rng()
    return len(rng).to_bytes(4, "little") + rng + source.pack()


def _pickled(state: Any, dataset: Any) -> bytes:
    try:
        return pickle.dumps(state)
    except Exception as err:
        raise UnsafeState(
            f"The state of {type(dataset).__qualname__} can't be sent from a loader worker: {err}",
            do="Let its state_dict() return plain values and tensors.",
        ) from err


class RestoringInit:
    """In a worker that starts: the user's init function, then the state to go on from."""

    def __init__(self, init: Callable[[int], None] | None, source: Source) -> None:
        self.init = init
        self._source = source
        self.states: dict[int, WorkerState] = {}

    def __call__(self, worker_id: int) -> None:
        global _stream, _said
        info: Any = get_worker_info()
        _stream = info.dataset if isinstance(info.dataset, Stream) else None
        if isinstance(info.dataset, (Skippable, Stream)):
            # An init function, and the data set itself, look here for the data set that the user made.
            object.__setattr__(info, "dataset", info.dataset.dataset)
        if self.init is not None:
            self.init(worker_id)
        if worker_id in self.states and _stream is None:
            _said = _restore_map_style(self.states[worker_id], info.dataset, self._source)


def _restore(packed: bytes, source: Source) -> str:
    """Set this worker's generators, and the state of what it reads with."""
    size = int.from_bytes(packed[:4], "little")
    unpack_rng(packed[4 : 4 + size])
    return source.load(packed[4 + size :])


def _restore_map_style(state: WorkerState, dataset: Any, source: Source) -> str:
    if state.position and has_state(dataset):
        dataset.load_state_dict(pickle.loads(state.position))
    return _restore(state.rng, source)


class _Nothing(list[Any]):
    """Stands for the sample that a leading empty batch does not have."""


_NOTHING = _Nothing()


def _is_nothing(samples: Any) -> bool:
    if isinstance(samples, list) and not isinstance(samples, _Nothing):
        return not samples or (len(samples) == 1 and samples[0] is _NOTHING)
    return samples is _NOTHING


class Skippable:
    """A map-style data set that is not asked for the empty batches that come first after a resume."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.__getitems__ = self._getitems if hasattr(dataset, "__getitems__") else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return _NOTHING if isinstance(index, list) and not index else self.dataset[index]

    def _getitems(self, indices: Any) -> Any:
        return self.dataset.__getitems__(indices) if len(indices) else []


class Stream:
    """An iterable data set as one worker reads it (or the main process, if there are none), with its position."""

    def __init__(self, dataset: Any, passes: Passes, source: Source, *, leading: int = 0) -> None:
        self.dataset = dataset
        self.passes = passes
        self.source = source
        self.leading = leading
        """So many workers begin with an empty batch, to get the same share as in the interrupted pass."""
        self.resumed: dict[int, tuple[dict[str, Any], WorkerState]] = {}
        """Workers' positions and states to go on from."""
        self.said = ""
        self._at_start = b""
        """Generators and source as they were before the pass."""

    def position(self) -> dict[str, Any]:
        """Return where this worker stands, with what it takes to read the pass again if that is how to get there."""
        position = self.passes.position()
        return position if self.passes.keeps_position else {**position, "at_start": self._at_start}

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker = info.id if info is not None else 0
        resumed = self.resumed.pop(worker, None)
        is_late, self.leading = worker < self.leading, 0
        self._at_start = _pack(self.source)
        if resumed is None:
            self.passes.begin()  # now, when the plain loader would
        return self._items(resumed, is_late)

    def _items(self, resumed: "tuple[dict[str, Any], WorkerState] | None", is_late: bool) -> Iterator[Any]:
        if is_late:
            yield _NOTHING
        if resumed is not None:
            position, state = resumed
            # Workers that persist do not begin each pass as they were seeded.
            self._at_start = position.get("at_start", self._at_start)
            self.said = self.passes.go_on(
                position,
                before_pass=lambda: self._restore(self._at_start),
                before_item=lambda: self._restore(state.rng),
            )
        yield from self.passes

    def _restore(self, packed: bytes) -> None:
        _restore(packed, self.source)


_said = ""
"""What went wrong when this worker went on from where another stood, with map-style data."""
_stream: Stream | None = None
"""What this worker reads, if it is an iterable data set."""
