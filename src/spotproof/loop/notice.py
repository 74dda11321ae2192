"""A notice that the machine will be taken. A signal handler notes it; the training acts where its state is at rest.

A handler only sets a flag, with one exception: in stretches that were marked with :attr:`Notice.may_wake`, where
nothing that is to be saved is half done, it raises :class:`Woken`, so that the main thread does not sleep through its
grace in a loader that delivers nothing.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Literal, Protocol

from spotproof.contract import EXIT_INTERRUPTED
from spotproof.errors import SpecError

__all__ = ["Notice", "NoticeSource", "Woken"]

NoticeSource = Literal["sigterm", "sigusr1", "sigusr2", "ec2"]
_SIGNALS = {"sigterm": signal.SIGTERM, "sigusr1": signal.SIGUSR1, "sigusr2": signal.SIGUSR2}
_WAKE_SIGNAL = signal.SIGURG
"""Sent by a thread to the main thread. What it does by default is nothing, so it may come at any time."""


class Woken(SystemExit):
    """Raised in the main thread by a notice that comes while it waits or sets up; ends the process if nobody saves."""

    def __init__(self) -> None:
        super().__init__(EXIT_INTERRUPTED)


class Poller(Protocol):
    """Something that watches for a notice in a thread of its own."""

    def start(self, on_notice: Callable[[str], None]) -> None: ...

    def stop(self) -> None: ...


class Notice:
    """Listens for notices. The first one counts; those that follow change nothing."""

    def __init__(self, sources: Sequence[NoticeSource], pollers: Sequence[Poller] = ()) -> None:
        """Listen to nothing yet.

        Raises:
            SpecError: There is no such source.
        """
        unknown = [source for source in sources if source not in (*_SIGNALS, "ec2")]
        if unknown or isinstance(sources, str):
            raise SpecError(
                f"notices={sources!r} names no source of notices.", do=f"Choose from {', '.join(_SIGNALS)} and ec2."
            )
        self.source: str | None = None
        """What the notice was, once it came."""
        self.at = 0.0
        """When it came, on the monotonic clock."""
        self.may_wake = False
        """Whether the main thread may be interrupted right now: nothing that is to be saved is half done."""
        self._signals = [_SIGNALS[source] for source in sources if source in _SIGNALS]
        self._pollers = list(pollers)
        self._pid = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def is_listening(self) -> bool:
        """Whether signal handlers are in place."""
        return bool(self._previous)

    def install(self) -> bool:
        """Take over the signals and start the pollers; return False if signals can't be had outside the main thread."""
        self.source, self.may_wake, self._pid = None, False, os.getpid()
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and not self._previous:
            for number in self._signals:
                self._previous[number] = signal.getsignal(number)
                signal.signal(number, self._note)
            if self._pollers:
                self._previous[_WAKE_SIGNAL] = signal.getsignal(_WAKE_SIGNAL)
                signal.signal(_WAKE_SIGNAL, self._wake)
        for poller in self._pollers:
            poller.start(self._note_from_thread)
        return is_main

    def hold(self) -> None:
        """Take the signals back from handlers that came later and would end training between two safe points."""
        if threading.current_thread() is threading.main_thread():
            for number in self._previous.keys() & set(self._signals):
                signal.signal(number, self._note)

    def remove(self, restored_by_others: dict[int, Any]) -> None:
        """Put back the handlers that were there before :meth:`install`, and stop the pollers.

        Args:
            restored_by_others: Handlers, by signal number, that somebody else is going to put back after us. Ours among
                them are exchanged for those that were there before.
        """
        self.may_wake = False
        for poller in self._pollers:
            poller.stop()
        if threading.current_thread() is threading.main_thread():
            for number, earlier in self._previous.items():
                # None: a handler that was not set from Python, and can't be put back from there.
                previous = signal.SIG_DFL if earlier is None else earlier
                signal.signal(number, previous)
                if restored_by_others.get(number) in (self._note, self._wake):
                    restored_by_others[number] = previous
            self._previous.clear()

    def heard(self, source: str) -> None:
        """Note that the notice *source* came to another process of this training."""
        self._set(source)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A loader worker forked from us: its SIGTERM is the order to end, and ignoring it would hang the shutdown.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        number = signal.Signals(signum)
        self._set(number.name)
        previous = self._previous.get(number)
        if callable(previous):
            previous(signum, frame)
        self._wake(signum, frame)

    def _note_from_thread(self, source: str) -> None:
        self._set(source)
        main = threading.main_thread().ident
        if main is not None and _WAKE_SIGNAL in self._previous:
            signal.pthread_kill(main, _WAKE_SIGNAL)

    def _set(self, source: str) -> None:
        if self.source is None:
            self.at = time.monotonic()
            self.source = source

    def _wake(self, signum: int, frame: FrameType | None) -> None:
        if self.may_wake and self.source is not None and os.getpid() == self._pid:
            self.may_wake = False
            raise Woken
