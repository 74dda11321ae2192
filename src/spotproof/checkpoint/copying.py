"""Copying many blocks of host memory, on as many cores as are free.

Torch copies a tensor on all its threads and waits for each of them, tensor by tensor. Where a core is busy with
something else, such as loader workers, each of these waits takes a slice of the scheduler's time: ten times what the
copy takes. Here every thread takes the next piece when it is done with one, so that a busy core just takes fewer.
"""

import ctypes
import os
import queue
import threading
from collections.abc import Iterator, Sequence

__all__ = ["Block", "Copier"]

Block = tuple[int, int, int]
"""Address to copy to, address to copy from, bytes. Whoever copies keeps both alive."""

_PIECE_BYTES = 16 * 2**20
_MIN_SHARED_BYTES = 8 * 2**20
"""Less is copied before another thread has woken up."""
_SMALL_BYTES = 2**18
"""Copied without letting go of the interpreter, which takes longer to get back."""
_MAX_THREADS = 4
"""So many cores copy as fast as the memory of most machines can."""

_copy_small = ctypes.PyDLL(None).memmove
_copy_small.argtypes, _copy_small.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_void_p


_Job = tuple[Iterator[Block], threading.Semaphore]


class Copier:
    """Copies, with threads that are started when they are first of use and end with this."""

    def __init__(self, *, num_threads: int | None = None) -> None:
        """Prepare; *num_threads*, the caller's own among them, is by default as many as there are cores, but few."""
        self._num_helpers = (num_threads or min(_num_cores(), _MAX_THREADS)) - 1
        self._jobs: list[queue.SimpleQueue[_Job | None]] = []

    def __del__(self) -> None:
        for jobs in self._jobs:
            jobs.put(None)

    def copy(self, blocks: Sequence[Block]) -> None:
        """Copy all *blocks*, which do not overlap, before this returns."""
        pieces: list[Block] = []
        for to, start, size_bytes in blocks:
            if size_bytes <= _SMALL_BYTES:
                _copy_small(to, start, size_bytes)
                continue
            for at in range(0, size_bytes, _PIECE_BYTES):
                pieces.append((to + at, start + at, min(_PIECE_BYTES, size_bytes - at)))
        # An iterator over a list hands out each of its items once, whoever asks.
        left, copied = iter(pieces), threading.Semaphore(0)
        if sum(size_bytes for *_, size_bytes in pieces) >= _MIN_SHARED_BYTES:
            for jobs in self._helpers():
                jobs.put((left, copied))
        by_others = len(pieces)
        for piece in left:
            ctypes.memmove(*piece)
            by_others -= 1
        for _ in range(by_others):
            copied.acquire()

    def _helpers(self) -> "list[queue.SimpleQueue[_Job | None]]":
        while len(self._jobs) < self._num_helpers:
            jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(jobs,), name="spotproof-copy", daemon=True).start()
            self._jobs.append(jobs)
        return self._jobs


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(jobs: "queue.SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        left, copied = job
        for piece in left:
            ctypes.memmove(*piece)
            copied.release()
