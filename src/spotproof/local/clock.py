"""One thread that tells jobs when their time has come, however many there are."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Clock"]

_SHORTEST_WAIT_SECONDS: Final = 0.001
_BEAT_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


class Clock:
    """Ring for each name at its instant, and beat once a second while anything is set or *is_busy* says so.

    Args:
        ring: Called with a name whose instant has come; it may set the next one.
        beat: Called each second.
        is_busy: Whether to beat though no instant is set.
    """

    def __init__(self, ring: Callable[[str], object], beat: Callable[[], object], is_busy: Callable[[], bool]) -> None:
        self._ring, self._beat, self._is_busy = ring, beat, is_busy
        self._at: dict[str, float] = {}
        self._hurried: dict[str, None] = {}
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        """Run."""
        self._thread.start()

    def set(self, name: str, at: float) -> None:
        """Ring for *name* at *at*, in seconds since 1970, and no longer at the instant set before. Infinity: never."""
        with self._changed:
            if math.isinf(at):
                self._at.pop(name, None)
            else:
                self._at[name] = at
            self._changed.notify()

    def hurry(self, name: str) -> None:
        """Ring for *name* now, whatever is being set at this moment."""
        with self._changed:
            self._hurried[name] = None
            self._changed.notify()

    def close(self) -> None:
        """Stop; returns when nothing is being called any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        next_beat = 0.0
        while True:
            with self._changed:
                if self._is_closed:
                    return
                now = time.time()
                if math.isinf(next_beat) and (self._at or self._is_busy()):
                    next_beat = now
                due = dict(self._hurried)  # in the order in which they were hurried
                self._hurried.clear()
                due.update({name: None for name, at in self._at.items() if at <= now})
                for name in due:
                    self._at.pop(name, None)
                if not due and now < next_beat:
                    self._wait(now, next_beat)
                    continue
            for name in due:
                self._call(self._ring, name)
            if now >= next_beat:
                self._call(self._beat)
                next_beat = time.time() + (_BEAT_SECONDS if self._at or self._is_busy() else math.inf)

    def _wait(self, now: float, next_beat: float) -> None:
        """Wait for the first instant, or until one is set."""
        until = min(min(self._at.values(), default=math.inf), next_beat)
        self._changed.wait(None if math.isinf(until) else max(_SHORTEST_WAIT_SECONDS, until - now))

    def _call(self, function: Callable[..., object], *arguments: str) -> None:
        try:
            function(*arguments)
        except Exception:  # one job's trouble must not stop the clock of all
            _log.exception("the clock met an error%s", f" at {arguments[0]}" if arguments else "")
