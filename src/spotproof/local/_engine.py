"""The keeper of one thing of a container engine's: a container, or a network. Forked by ``_forkserver.py``, as its
neighbour ``_supervisor.py`` is. Standard library only.

It has the engine's command line make the thing, start it and remove it, and speaks the supervisor's language: one line
of JSON and then single-byte commands from stdin, lines to its report. When stdin ends, which is what the server's death
looks like from here, it removes the thing and leaves: the server needs no chance to clean up.

    commands   G go: start the container · T SIGTERM to its PID 1 · K remove it, with all that runs in it
    reports    ready · error TEXT · exit CODE · left TEXT (could not be removed) · then end of file

The configuration holds command lines: ``create``, ``start`` (attached: its output is ours), ``terminate``, ``wait``,
``look`` (prints status and exit code) and ``remove``; a network has only the first and the last. The exit code is asked
of the engine: that of the attached client says less, for a client may be killed or lose its daemon.
"""

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import IO, Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spotproof.local import _supervisor
else:
    import _supervisor

_PATIENCE_SECONDS = 60.0
"""For an engine that is to make or to remove what nobody wants any more. What it is making is not cut off: it might be
made all the same, and nobody would know of it."""
_RETRY_SECONDS = 0.1
_GONE = ("no such", "not found", "no container with", "unable to find")
"""How engines say that what is to be removed is not there."""
_KILLED = 128 + signal.SIGKILL
_NOT_FOUND = 127
_READ_BYTES = 64 * 1024
_LONGEST_LINE_BYTES = 256 * 1024


def run(report_fd: int) -> int:
    """Keep one thing to its end; return the exit code of this process."""
    line, commands = _supervisor.read_line(_supervisor.CONTROL_FD)
    if not line:
        return 1  # the server is gone already
    Keeper(json.loads(line), report_fd, commands).keep()
    return 0


class Keeper:
    """One thing from its making to its end."""

    def __init__(self, config: dict[str, Any], report_fd: int, commands: bytes) -> None:
        self._config, self._report_fd = config, report_fd
        self._news = threading.Condition()
        self._commands: set[str] = set()
        self._has_told_exit = False
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # the byte in the pipe does it
        self._take(commands)
        threading.Thread(target=self._listen, args=(wake_read,), daemon=True).start()

    def keep(self) -> None:
        """Make, run and remove it."""
        made = Client(self._config, "create", self._news, self._config["environment"])
        self._wait_client(made)
        if made.code != 0:
            self._report(f"error {made.complaint() or 'the engine did not answer'}")
            self._remove(None)
            return
        self._report("ready")
        self._wait(lambda: bool(self._commands & {"G", "K"}))
        attached = None
        if not self._is_ending:
            attached = Client(self._config, "start", self._news, is_attached=True)
            code = self._see_to_its_end(attached)
            if code is not None:
                self._report(f"exit {code}")
                self._has_told_exit = True
        self._remove(attached)
        if not self._has_told_exit:
            self._report(f"exit {_KILLED}")

    @property
    def _is_ending(self) -> bool:
        return "K" in self._commands

    def _see_to_its_end(self, client: "Client") -> int | None:
        """Return the container's exit code; None if it is to be removed."""
        while self._stay_with(client):
            look = Client(self._config, "look", self._news)
            self._wait_client(look)
            words = look.answer().split()
            if look.code != 0 or len(words) != 2 or not words[1].isdigit():
                return _KILLED  # it is not there: somebody has removed it
            if words[0] in ("created", "configured", "initialized"):
                return int(words[1]) or _NOT_FOUND  # its command could not be started
            if words[0] not in ("running", "paused", "restarting", "stopping"):
                return int(words[1])
            client = Client(self._config, "wait", self._news)  # it was only the client that ended
        return None

    def _stay_with(self, client: "Client") -> bool:
        """Return true once *client* has ended, or false once the container is to be removed; pass on SIGTERM."""
        while True:
            self._wait(lambda: client.is_done or bool(self._commands & {"T", "K"}))
            if self._is_ending or client.is_done:
                return not self._is_ending
            messenger = Client(self._config, "terminate", self._news)
            self._wait_client(messenger)
            if messenger.code == 0:
                self._commands.discard("T")
            else:  # until it runs, an engine refuses to send a signal: a stop that comes early must not be lost
                self._wait(lambda: client.is_done or self._is_ending, _RETRY_SECONDS)

    def _remove(self, attached: "Client | None") -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        complaint = ""
        while time.monotonic() < deadline:
            client = Client(self._config, "remove", self._news)
            self._wait_done(client, deadline - time.monotonic())
            complaint = client.complaint()
            if client.code == 0 or any(words in complaint.lower() for words in _GONE):
                break
            time.sleep(_RETRY_SECONDS)  # a network cannot go before its containers
        else:
            self._report(f"left {complaint or 'the engine did not answer'}")
        if attached is not None:
            self._wait_done(attached, _PATIENCE_SECONDS)  # its last words are on their way

    def _wait_client(self, client: "Client") -> None:
        """Return when *client* is done; if nobody wants the thing any more, after a patience at the latest."""
        self._wait(lambda: client.is_done or self._is_ending)
        self._wait_done(client, _PATIENCE_SECONDS)

    def _wait_done(self, client: "Client", seconds: float) -> None:
        """Return when *client* is done, or has been killed because that took too long."""
        self._wait(lambda: client.is_done, seconds)
        client.kill()

    def _wait(self, is_so: Callable[[], bool], seconds: float | None = None) -> None:
        with self._news:
            self._news.wait_for(is_so, None if seconds is None else max(seconds, 0.0))

    def _listen(self, wake_fd: int) -> None:
        while True:
            ready, _, _ = select.select([_supervisor.CONTROL_FD, wake_fd], [], [])
            data = b"" if wake_fd in ready else os.read(_supervisor.CONTROL_FD, 4096)
            self._take(data or b"K")
            if not data:
                return

    def _take(self, data: bytes) -> None:
        with self._news:
            self._commands |= set(data.decode(errors="replace"))
            self._news.notify_all()

    def _report(self, text: str) -> None:
        _supervisor.report(self._report_fd, text)


class Client:
    """One call of the engine's command line."""

    def __init__(
        self,
        config: dict[str, Any],
        verb: str,
        news: threading.Condition,
        environment: dict[str, str] | None = None,
        *,
        is_attached: bool = False,
    ) -> None:
        self._news = news
        self.code: int | None = None
        self._answer = None if is_attached else _open_file()
        self._complaint = None if is_attached else _open_file()
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                config[verb],
                stdin=subprocess.DEVNULL,
                stdout=self._answer or subprocess.PIPE,
                stderr=self._complaint or subprocess.PIPE,
                env={**config["client_environment"], **(environment or {})},
            )
        except OSError as error:
            text = f"spotproof: {error}\n".encode(errors="replace")
            os.write(2 if self._complaint is None else self._complaint.fileno(), text)
            self._process, self.code = None, _NOT_FOUND
            return
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    @property
    def is_done(self) -> bool:
        return self.code is not None

    def answer(self) -> str:
        """Return what it has printed."""
        return self._read(self._answer)

    def complaint(self) -> str:
        """Return what it has printed to stderr, in one line."""
        return " ".join(self._read(self._complaint).split())

    def _read(self, file: "IO[bytes] | None") -> str:
        if file is None or not self.is_done:
            return ""
        file.seek(0)
        return file.read(_READ_BYTES).decode(errors="replace")

    def kill(self) -> None:
        if self._process is not None and not self.is_done:
            self._process.kill()

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for its end; of an attached client, pass on the lines of its stdout and stderr, none within another."""
        lock = threading.Lock()
        pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
        threads = [threading.Thread(target=_pass_lines, args=(pipe, lock), daemon=True) for pipe in pipes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        code = process.wait()
        with self._news:
            self.code = code
            self._news.notify_all()


def _pass_lines(source: IO[bytes], lock: threading.Lock) -> None:
    """Write what comes from *source* to stdout, in whole lines: the engine hands over the two streams by pieces."""
    rest = b""
    while data := os.read(source.fileno(), _READ_BYTES):
        lines, newline, rest = (rest + data).rpartition(b"\n")
        if len(rest) > _LONGEST_LINE_BYTES:
            lines, newline, rest = lines + newline, rest, b""
        _write(lines + newline, lock)
    _write(rest, lock)


def _write(data: bytes, lock: threading.Lock) -> None:
    try:
        with lock:
            while data:
                data = data[os.write(1, data) :]
    except BrokenPipeError:
        pass  # the server is gone; the end of stdin will say so


def _open_file() -> IO[bytes]:
    return TemporaryFile()
