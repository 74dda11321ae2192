"""A notice that the machine will be taken: the handler sets a flag, the loop acts at its next safe point."""

import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Notice"]


class Notice:
    """Notes SIGTERM. Nothing else happens in the handler: no I/O, no collectives, no logging."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._pid = os.getpid()
        self._previous: Any = None

    def install(self) -> None:
        """Take over SIGTERM, and chain to the handler that was there. Only possible in the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._pid = os.getpid()
            self._previous = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._note)

    def hold(self) -> None:
        """Take SIGTERM back from a handler that came later and would end training between two safe points."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def remove(self) -> None:
        """Put back the handler that was there before :meth:`install`."""
        if threading.current_thread() is threading.main_thread() and self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A loader worker forked from us: its SIGTERM is the order to end, and ignoring it would hang the shutdown.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        self.signal = signal.Signals(signum)
        if callable(self._previous):
            self._previous(signum, frame)
