"""Counts a process's file-system calls on one folder, and lets it die by SIGKILL instead of one of them."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["guard_calls"]

_ON_PATHS = ("open", "mkdir", "unlink", "rmdir", "replace", "rename", "link")
_ON_FILES = ("write", "fsync", "ftruncate")


def guard_calls(folder: Path, die_at: int | None, tell: Callable[[str], None]) -> None:
    """From here on, die at call number *die_at* of this process on *folder*, from 0; a write dies half done.

    Args:
        folder: What is not below it does not count.
        die_at: None to die at none.
        tell: Called with what the process dies at, such as ``fsync packs``.
    """
    _Guard(folder, die_at, tell).install()


class _Guard:
    def __init__(self, folder: Path, die_at: int | None, tell: Callable[[str], None]) -> None:
        self._folder = str(folder.absolute())
        self._left = die_at
        self._tell = tell
        self._files: dict[int, str] = {}
        """What the open file descriptors are of, below the folder."""
        self._lock = threading.Lock()

    def install(self) -> None:
        """Put this before the calls of :mod:`os`."""
        for name in _ON_PATHS:
            setattr(os, name, self._on_path(name, getattr(os, name)))
        for name in _ON_FILES:
            setattr(os, name, self._on_file(name, getattr(os, name)))
        plain_close = os.close

        def close(fd: int) -> None:
            self._files.pop(fd, None)
            plain_close(fd)

        os.close = close

    def _on_path(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *args: Any, **kwargs: Any) -> Any:
            place = self._place(target)
            if place is not None:
                self._count(f"{name} {place}")
            result = original(target, *args, **kwargs)
            if name == "open":
                if place is None:
                    self._files.pop(result, None)
                else:
                    self._files[result] = place
            return result

        return call

    def _on_file(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, *args: Any) -> Any:
            place = self._files.get(fd)
            if place is not None:
                half = (lambda: original(fd, args[0][: len(args[0]) // 2])) if name == "write" else None
                self._count(f"{name} {place}", half)
            return original(fd, *args)

        return call

    def _place(self, target: Any) -> str | None:
        if not isinstance(target, str | bytes | os.PathLike):
            return None
        path = os.path.abspath(os.fsdecode(target))
        if path != self._folder and not path.startswith(self._folder + os.sep):
            return None
        return os.path.relpath(path, self._folder)

    def _count(self, what: str, half: Callable[[], object] | None = None) -> None:
        if self._left is None:
            return
        with self._lock:  # uploads are written by several threads
            if self._left == 0:
                self._tell(what)
                if half is not None:
                    half()
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
