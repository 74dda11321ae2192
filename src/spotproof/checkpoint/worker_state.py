"""The part of a resumable loader that runs in its worker processes: generator states go along with batches, and come
back when a worker starts."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch.utils.data import get_worker_info

from spotproof.checkpoint.generators import find_generators, load_generators, pack_generators
from spotproof.checkpoint.rng import pack_rng, unpack_rng

__all__ = ["RestoringInit", "Skippable", "TaggingCollate"]

T = TypeVar("T")


class TaggingCollate(Generic[T]):
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


class RestoringInit:
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
    return info.dataset._dataset if isinstance(info.dataset, Skippable) else info.dataset


class _Nothing(list[Any]):
    """Stands for the sample that a leading empty batch does not have."""


_NOTHING = _Nothing()


class Skippable:
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
