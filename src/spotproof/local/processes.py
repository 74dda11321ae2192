"""Process trees that end when they are told to, and when we die.

Each is started under ``_supervisor.py``. What a killed server's supervisors could not end themselves, the next server
on the same state directory ends: see :mod:`spotproof.local.registry`.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from spotproof.errors import EngineError
from spotproof.local.forkserver import Keeper
from spotproof.local.registry import ENV_MARK, Registry, remove_leaves

__all__ = ["Stage", "Supervised"]

_READY_TIMEOUT_SECONDS: Final = 60.0
_READ_BYTES: Final = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What surrounds a command."""

    mode: Literal["namespace", "plain", "engine"] = "plain"
    """``engine``: not a command but what a container engine makes, see ``_engine.py``."""
    cwd: Path
    environment: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The mounts and the name of a namespaced host, see ``_supervisor.py``; the engine's command lines."""


class Supervised:
    """One command and all its descendants, under a supervisor of their own.

    ``open`` sets the stage, ``start`` lets the command run, ``kill`` ends the whole tree, ``is_gone`` is set when no
    process of it is left and all its output has been delivered. Its verbs never block, except ``open``.
    """

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        registry: Registry,
        *,
        on_output: Callable[[bytes], object],
        on_exit: Callable[[int], None],
    ) -> None:
        self.what = what
        self.is_gone = threading.Event()
        self.exit_code: int | None = None
        self._command, self._registry = list(command), registry
        self._on_output, self._on_exit = on_output, on_exit
        self._ready = threading.Event()
        self._error: str | None = None
        self._end = "with the process that it was forked from"
        self._lock = threading.Lock()
        self._removal: Sequence[str] | None = None
        self.pid: int | None = None
        """The supervisor's process id."""
        self._control: int | None = None
        self._leaves: Sequence[str] = ()

    def open(self, stage: Stage) -> None:
        """Set the stage and return once the command only waits for the word.

        Raises:
            EngineError: It could not be set; nothing is left of it.
        """
        config = {
            "mode": stage.mode,
            "command": self._command,
            "cwd": str(stage.cwd),
            "environment": {**stage.environment, ENV_MARK: f"{self._registry.owner}/{self.what}"},
            **stage.settings,
        }
        self._leaves = stage.settings.get("remove_at_end", ())
        self._removal = stage.settings.get("remove")
        fds: list[int] = []  # of control, output and report: where to read, where to write
        try:
            for _ in range(3):
                fds += os.pipe()
            kind: Keeper = "engine" if stage.mode == "engine" else "supervisor"
            self.pid = self._registry.forks.fork(kind, fds[0], fds[3], fds[5])
        except OSError as error:
            _close(fds)
            raise EngineError(f"{self.what} could not be started:", why=f"{error}.") from error
        _close([fds[0], fds[3], fds[5]])
        _, control_write, output_read, _, report_read, _ = fds
        self._registry.add(self.pid, self.what, self._leaves)
        with self._lock:  # the first line is the configuration, even if a kill comes at this very moment
            self._control = control_write
            self._write(json.dumps(config).encode() + b"\n")
        threading.Thread(
            target=self._watch, args=(output_read, report_read), name=f"watch {self.what}", daemon=True
        ).start()
        if not self._ready.wait(_READY_TIMEOUT_SECONDS) or self._error is not None:
            self.kill()
            self.is_gone.wait(_READY_TIMEOUT_SECONDS)
            raise EngineError(f"{self.what} could not be set up:", why=f"{self._error or 'it did not answer'}.")

    def start(self) -> None:
        """Let the command run."""
        self._send(b"G")

    def terminate(self) -> None:
        """Send SIGTERM to the command alone, as a container engine does to PID 1."""
        self._send(b"T")

    def kill(self) -> None:
        """SIGKILL the whole tree."""
        self._send(b"K")

    def _send(self, data: bytes) -> None:
        with self._lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._control is None:
            return
        try:
            while data:
                data = data[os.write(self._control, data) :]
        except OSError:  # the supervisor is gone, and its tree with it
            pass

    def _watch(self, output_fd: int, report_fd: int) -> None:
        """Deliver output and reports as they come, on one thread, until the tree is gone."""
        assert self.pid is not None
        selector = selectors.DefaultSelector()
        selector.register(output_fd, selectors.EVENT_READ, self._take_output)
        selector.register(report_fd, selectors.EVENT_READ, _Lines(self._take_report))
        while selector.get_map():
            # Once the supervisor has gone, an escaped process (macOS) may hold the output open: don't wait for it.
            is_over = len(selector.get_map()) == 1 and report_fd not in selector.get_map()
            ready = selector.select(1.0 if is_over else None)
            if is_over and not ready:
                break
            for key, _ in ready:
                data = os.read(key.fd, _READ_BYTES)
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fd)
                if not data and key.fd == report_fd and self.exit_code is None:
                    self._end_orphans()
        selector.close()
        with self._lock:
            _close([output_fd, report_fd, *([] if self._control is None else [self._control])])
            self._control = None
        remove_leaves(self._leaves)  # what a supervisor that was killed could not
        self._registry.remove(self.pid)
        if self.exit_code is None:
            self._error = self._error or f"its supervisor ended {self._end}"
            self._ended(128 + signal.SIGKILL)
        self._ready.set()
        self.is_gone.set()

    def _end_orphans(self) -> None:
        """End what a supervisor that was killed has left: it has no other end."""
        self._registry.end_marked(self.what)
        if self._removal is not None:
            with contextlib.suppress(
                OSError, subprocess.TimeoutExpired
            ):  # the next server on the directory tries again
                subprocess.run(
                    self._removal,
                    capture_output=True,
                    stdin=subprocess.DEVNULL,
                    check=False,
                    timeout=_READY_TIMEOUT_SECONDS,
                )

    def _take_output(self, data: bytes) -> None:
        try:
            self._on_output(data)
        except Exception:  # a full disk under the log must not stop the thread that sees the end of the process
            _log.exception("output of %s was lost", self.what)

    def _take_report(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "ready":
            self._ready.set()
        elif word == "error":
            self._error = rest
            self._ready.set()
        elif word == "exit" and self._error is None:
            self._ended(int(rest))
        elif word == "gone":
            self._end = f"with code {rest}"
        elif word == "left":
            _log.warning("%s could not be removed: %s", self.what, rest)

    def _ended(self, code: int) -> None:
        self.exit_code = code
        try:
            self._on_exit(code)
        except Exception:  # as above
            _log.exception("the end of %s could not be handled", self.what)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class _Lines:
    """Cut bytes into lines."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take, self._rest = take, b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))
