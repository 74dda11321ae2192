"""Exact position in iterable data sets: they say where they stand, or are read again up to there.

With workers each of them reads a copy of the data set, and sends where it stands along with each batch.
"""

import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from spotproof.checkpoint.batches import Batches
from spotproof.checkpoint.passes import AT_THE_NEXT_PASS, Passes
from spotproof.checkpoint.resumable import OnMismatch, ResumableDataLoader
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.worker_state import Stream, WorkerState

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

__all__ = ["ResumableStream"]


class ResumableStream(ResumableDataLoader):
    """A DataLoader over an iterable data set, resumed by the data set's position."""

    def _prepare(self, loader: "DataLoader[Any]", on_mismatch: OnMismatch | None) -> None:
        super()._prepare(loader, on_mismatch)
        self._source = loader._index_sampler
        self._leading = 0
        self._passes = Passes(self.dataset)
        """Of the main process; read from there if there are no workers."""
        self._stale: set[int] = set()
        """Workers whose last batch was of an earlier pass."""
        self._next_worker = 0

    @property
    def _index_sampler(self) -> Any:
        return _WithLeading(self._source, self._leading) if self._leading else self._source

    @property
    def reads_again(self) -> bool:  # type: ignore[override]
        """Whether a resume reads items again to find its place."""
        if self._passes.keeps_position:
            return False
        return not any(pickle.loads(state.position)["iterator"] for state in self._workers.values())

    def _begin(self, leading: int, state: dict[str, Any] | None) -> Batches:
        self._leading = self._next_worker = leading
        self._stale = set(self._workers) if state is None else set(state["stale"])
        passes = Passes(self.dataset) if self.num_workers else self._passes
        stream = Stream(self.dataset, passes, self.source, leading=leading)
        data: Any = stream
        before_first = None
        resumed = None if state is None else {**state, "before": self._before}
        if self.num_workers:
            stream.resumed = {
                worker: (self._position_of(worker, saved), saved)
                for worker, saved in self._workers.items()
                if state is not None or self._iterator is None  # workers that persist know where they are
            }
        elif state is not None:
            data = self._passes  # which begins nothing before it has gone on
            position, source = state["position"], state["source"]
            before_first = lambda: self._go_on(position, source)  # noqa: E731
        try:
            inner = self._make_iterator(data, leading)
        finally:
            self._leading = 0
        return Batches(
            inner,
            self._received,
            self._ended,
            self.source,
            from_workers=self.num_workers > 0,
            resumed=resumed,
            before_first=before_first,
        )

    def _position_of(self, worker: int, state: WorkerState) -> dict[str, Any]:
        position: dict[str, Any] = pickle.loads(state.position)
        if worker not in self._stale:
            return position
        attributes = position.get("attributes", {})
        return {**position, **AT_THE_NEXT_PASS, "attributes": attributes, "at_start": state.rng}

    def _go_on(self, position: dict[str, Any], source: bytes) -> None:
        current, before = pack_rng(), self._before
        assert before is not None

        def before_pass() -> None:
            unpack_rng(before["rng"])
            self.source.load(before["source"])

        def before_item() -> None:
            unpack_rng(current)
            self.source.load(source)

        said = self._passes.go_on(position, before_pass=before_pass, before_item=before_item)
        if said:
            self._say(said)

    def _say(self, said: str) -> None:
        self._on_mismatch(
            f"The data is not the one of the interrupted run: {said}. {type(self.dataset).__name__} does not "
            "depend on its state_dict and the random-number generators alone, or has changed."
        )

    def _of_other_workers(self, state: dict[str, Any]) -> None:
        return None  # positions are those of the workers' own shares: the pass begins anew

    def _received(self, worker: int | None, state: WorkerState | None) -> None:
        if worker is None or state is None:
            return
        self._workers[worker] = state
        self._stale.discard(worker)
        self._next_worker = (worker + 1) % self.num_workers
        if state.said:
            self._say(state.said)

    def _state_dict(self) -> dict[str, Any]:
        # With workers, too, so that a state that could not be read back is refused before anything was trained.
        return {
            **super()._state_dict(),
            "next_worker": self._next_worker,
            "stale": sorted(self._stale),
            "position": self._passes.position(),
        }

    def end_state(self) -> dict[str, Any]:
        state = super().end_state()
        return {**state, "stale": list(self._workers), "position": self._passes.end_position()}

    def _following(self, state: dict[str, Any]) -> dict[str, Any] | None:
        return state if self.persistent_workers or not self.num_workers else None

    def followed_by(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return *state*, the position before the last batch, with the one after it, which tells how a pass begins."""
        return {**state, "position": {**state["position"], "next": self.state_dict()["position"]}}


class _WithLeading:
    """The index source of a pass that begins with empty batches for some workers."""

    def __init__(self, source: Any, leading: int) -> None:
        self._source, self._leading = source, leading

    def __iter__(self) -> Iterator[Any]:
        leading, self._leading = self._leading, 0  # workers that persist are not asked for them again
        for _ in range(leading):
            yield [None]
        yield from self._source

    def __len__(self) -> int:
        return len(self._source)
