"""Reading an object of any size with bounded memory."""

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from obstore import Bytes

__all__ = ["S3Reader"]

_RANGE_BYTES: Final = 4 * 1024 * 1024
_AHEAD: Final = 2
"""Ranges that are fetched while one is being read. Memory is bounded by one more than that."""


class S3Reader(io.RawIOBase):
    """An object of known size, fetched in ranges ahead of the reading.

    What it gives is copied once, into the reader's own buffer. A range that fails after obstore's own tries raises
    what *fetch* raises.
    """

    def __init__(self, size_bytes: int, fetch: "Callable[[int, int], Bytes]") -> None:
        self._size, self._fetch = size_bytes, fetch
        self._next = 0
        self._ranges: list[Future[Bytes]] = []
        self._current = memoryview(b"")
        self._pool: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer).cast("B")
        if not self._current:
            self._current = memoryview(b"")  # the range before may go now
            self._current = self._take()
        count = min(len(target), len(self._current))
        target[:count] = self._current[:count]
        self._current = self._current[count:]
        return count

    def _take(self) -> memoryview:
        if self._next == 0 and self._size <= _RANGE_BYTES:
            self._next = self._size
            return memoryview(self._fetch(0, self._size)).cast("B") if self._size else memoryview(b"")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="spotproof-fetch")
        while self._next < self._size and len(self._ranges) < _AHEAD:
            end = min(self._next + _RANGE_BYTES, self._size)
            self._ranges.append(self._pool.submit(self._fetch, self._next, end))
            self._next = end
        return memoryview(self._ranges.pop(0).result()).cast("B") if self._ranges else memoryview(b"")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        super().close()
