"""The iterator of a resumable loader: hands out its batches, and keeps what workers sent along with them."""

from collections.abc import Callable, Iterator
from typing import Any

from spotproof.checkpoint.source import Source
from spotproof.checkpoint.worker_state import WorkerState

__all__ = ["Batches"]


class Batches(Iterator[Any]):
    """Hand out batches, and keep what came along with them."""

    def __init__(
        self,
        inner: Iterator[Any],
        received: Callable[[int | None, WorkerState | None], None],
        ended: Callable[[], None],
        source: Source,
        *,
        from_workers: bool,
        resumed: dict[str, Any] | None = None,
        before_first: Callable[[], None] | None = None,
    ) -> None:
        self._inner = inner
        self._received, self._ended = received, ended
        self._source, self._from_workers = source, from_workers
        self._before_first = before_first
        self.resumed = resumed
        """The state that this goes on from, until it has begun to."""

    def prepare(self) -> None:
        """Do now what is left to do before the first batch is fetched."""
        # Not when the iterator is made: a validation set that shares generators with this one may be read before.
        before_first, self._before_first, self.resumed = self._before_first, None, None
        if before_first is not None:
            before_first()

    def __next__(self) -> Any:
        try:
            return self._next()
        except StopIteration:
            self._ended()
            raise

    def _next(self) -> Any:
        self.prepare()
        if not self._from_workers:
            batch = self._source.fetch(lambda: next(self._inner))
            self._received(None, None)
            return batch
        while True:
            batch, (worker, state) = next(self._inner)
            if state is not None:  # else it is one of the empty ones that come first after a resume
                self._received(worker, state)
                return batch
