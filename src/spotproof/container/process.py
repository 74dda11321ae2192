"""One child and the duties of PID 1: forward signals, reap orphans, pass on the exit code."""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from spotproof.container.program import Command
from spotproof.errors import SpecError

__all__ = ["Outcome", "SignalInbox", "run"]

_TAIL_BYTES = 32 * 1024
_CHUNK_BYTES = 64 * 1024
_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Outcome:
    """How the program ended."""

    def __init__(self) -> None:
        self.exit_code = 0
        """128 + n if signal n killed it."""
        self.forwarded: list[signal.Signals] = []
        """The signals that it was sent through us."""
        self.stderr_tail = ""


class SignalInbox:
    """Signals as bytes in a pipe, from the moment this is made; the handlers themselves do nothing.

    Make it first thing: the kernel drops a SIGTERM for a PID 1 that has no handler.
    """

    def __init__(self) -> None:
        self._read_fd, write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in (*_FORWARDED, signal.SIGCHLD):
            signal.signal(number, _ignore)

    def fileno(self) -> int:
        return self._read_fd

    def take(self) -> list[signal.Signals]:
        """Return the signals to forward that arrived since the last call."""
        try:
            numbers = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in numbers if number in _FORWARDED]


def _ignore(number: int, frame: FrameType | None) -> None:
    """Let the wakeup pipe do the work."""


def run(
    command: Command,
    environment: Mapping[str, str],
    inbox: SignalInbox,
    *,
    beside: Callable[[], object] = lambda: None,
) -> Outcome:
    """Run *command* to its end and return how it ended. Nothing that it started is left running.

    Once it has started, *beside* is called.

    Its stdout is ours; its stderr passes through us byte by byte, so that the last of it can be told as the reason of
    a failure.

    Raises:
        SpecError: The kernel refuses to start it.
    """
    _adopt_orphans()
    outcome = Outcome()
    stderr_fd, child_stderr_fd = os.pipe()
    # Not waited for through subprocess: reaping orphans means waiting for *any* child, this one among them.
    try:
        child = subprocess.Popen(
            command.argv,
            cwd=command.directory,
            env=dict(environment),
            stderr=child_stderr_fd,
            preexec_fn=_die_with_parent,  # safe: this process has one thread
        )
    except OSError as err:
        raise SpecError(
            f"The program {command.program} could not be started.",
            why=f"{err}.",
            do="Check that its first line names an interpreter that this image has.",
        ) from err
    os.close(child_stderr_fd)
    os.set_blocking(stderr_fd, False)
    tail = bytearray()
    beside()

    with selectors.DefaultSelector() as selector:
        selector.register(stderr_fd, selectors.EVENT_READ)
        selector.register(inbox, selectors.EVENT_READ)
        status: int | None = None
        while status is None:
            for key, _ in selector.select():
                if key.fd == stderr_fd and not _pass_on(stderr_fd, tail):
                    selector.unregister(stderr_fd)
            for number in inbox.take():
                if not _terminal_sends(number):
                    os.kill(child.pid, number)
                outcome.forwarded.append(number)
            status = _reap(child.pid)

    code = os.waitstatus_to_exitcode(status)
    child.returncode = code
    outcome.exit_code = code if code >= 0 else 128 - code
    _end_children()
    while _pass_on(stderr_fd, tail):
        pass
    os.close(stderr_fd)
    outcome.stderr_tail = tail.decode("utf-8", errors="replace")
    return outcome


def _pass_on(fd: int, tail: bytearray) -> bool:
    """Copy what is readable to our stderr and keep its end; return whether more may come."""
    try:
        data = os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return False
    tail += data
    del tail[:-_TAIL_BYTES]
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(2, rest) :]
    except OSError:
        pass  # nobody reads our stderr any more; the program must not block on that
    return bool(data)


def _reap(pid: int) -> int | None:
    """Wait for every child that has ended; return the status of *pid* if it is among them."""
    status = None
    try:
        while True:
            ended, ended_status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                return status
            if ended == pid:
                status = ended_status
    except ChildProcessError:
        return status


def _end_children() -> None:
    """Kill what the program left running. As PID 1 our own end would do it; as a plain process it would not."""
    while True:
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            os.waitpid(-1, 0)  # its children become ours, so go round until there are none
        except ChildProcessError:
            return


def _children() -> list[int]:
    ours = os.getpid()
    children = []
    try:
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    except FileNotFoundError:  # no /proc: not Linux, and there is no subreaper either
        return []
    for entry in entries:
        try:
            fields = Path("/proc", entry, "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        # The command name stands in parentheses and may hold spaces: count from its end.
        if int(fields.rpartition(")")[2].split()[1]) == ours:
            children.append(int(entry))
    return children


def _terminal_sends(number: signal.Signals) -> bool:
    """Tell whether a terminal has sent *number* to the whole foreground group, the program included."""
    try:
        return number == signal.SIGINT and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _prctl(option: int, argument: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def _adopt_orphans() -> None:
    if os.getpid() != 1:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _die_with_parent() -> None:
    """Ask the kernel to kill the program when we are killed. As PID 1 that happens anyway."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
