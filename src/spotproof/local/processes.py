"""Process trees that end when they are told to, and when we die.

Each is started under ``_supervisor.py``. What a killed server's supervisors could not end themselves, the next server
on the same state directory ends: it finds them by a record with the start time, so that a reused pid is never killed,
and on Linux by a mark in the environment.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from spotproof.errors import EngineError
from spotproof.local.forkserver import ForkServer, Keeper

__all__ = ["ENV_MARK", "Registry", "Stage", "Supervised", "owner_id", "process_start_time", "remove_leaves"]

ENV_MARK: Final = "SPOTPROOF_LOCAL_HOST"
"""Set in every process tree, to ``<state directory id>/<what>``."""

_READY_TIMEOUT_SECONDS: Final = 60.0
_LEFTOVER_PATIENCE_SECONDS: Final = 3.0
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


def owner_id(state_dir: Path) -> str:
    """Return what the marks of one state directory's processes begin with."""
    return hashlib.sha256(str(state_dir).encode()).hexdigest()[:16]


def process_start_time(pid: int) -> str | None:
    """Return a text that tells process *pid* from an earlier or later one of that number; None if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        if sys.platform == "linux":
            return None
    result = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


class Registry:
    """The process trees of one state directory, on disk, so that the next server can end those of a killed one."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder, self.owner = folder, owner
        self.forks = ForkServer()
        folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End what starts processes; when all of them are gone."""
        self.forks.close()

    def add(self, pid: int, what: str, leaves: Sequence[str] = ()) -> None:
        """Record a supervisor, and the files that its tree leaves if nobody removes them."""
        record = {"pid": pid, "start_time": process_start_time(pid), "what": what, "leaves": list(leaves)}
        staged = self._folder / f"{pid}.staged"
        staged.write_text(json.dumps(record))
        staged.replace(self._folder / f"{pid}.json")

    def remove(self, pid: int) -> None:
        (self._folder / f"{pid}.json").unlink(missing_ok=True)

    def end_leftovers(self) -> list[str]:
        """End what an earlier, killed server left; return what it was. Only for a server that owns the directory."""
        ended: list[str] = []
        leaves: list[str] = []
        for path in self._folder.glob("*.json"):
            try:
                record = json.loads(path.read_text())
                pid, start_time, what = int(record["pid"]), record["start_time"], str(record["what"])
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                continue
            # A supervisor ends by itself once it sees our predecessor's death: let it, it does so in order.
            deadline = time.monotonic() + _LEFTOVER_PATIENCE_SECONDS
            while _is_same(pid, start_time) and time.monotonic() < deadline:
                time.sleep(0.02)
            if _is_same(pid, start_time):
                _kill(pid)
                ended.append(what)
            leaves += record.get("leaves", ())
            path.unlink(missing_ok=True)
        ended += self.end_marked()
        remove_leaves(leaves)
        return ended

    def end_marked(self, what: str = "") -> list[str]:
        """Kill whatever carries the mark of *what*, or any of ours: orphans of a supervisor that was killed."""
        mark = f"{ENV_MARK}={self.owner}/{what}".encode()
        ended = []
        for folder in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:  # another user's, or gone
                continue
            entries = environment.split(b"\0")
            found = [entry for entry in entries if entry == mark or (not what and entry.startswith(mark))]
            if found and int(folder.name) != os.getpid():
                _kill(int(folder.name))
                ended.append(found[0].decode(errors="replace").partition("/")[2])
        return ended


def remove_leaves(paths: Sequence[str]) -> None:
    """Remove what a process tree leaves: files, and control groups, which the kernel gives up once they are empty."""
    for path in map(Path, paths):
        deadline = time.monotonic() + _LEFTOVER_PATIENCE_SECONDS
        while path.exists():
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    break
                time.sleep(0.01)


def _is_same(pid: int, start_time: str) -> bool:
    return start_time is not None and process_start_time(pid) == start_time and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


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
