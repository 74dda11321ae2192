"""Telling that a save takes much longer than usual, while everything that could tell it waits. Loads no torch."""

import threading
from collections.abc import Callable

__all__ = ["StallWatch"]

STALLED_SECONDS = 60.0
_STALLED_FACTOR = 10
"""A save is called stalled when it has taken this many times what the one before took, and a minute at least."""


class StallWatch:
    """Looks at the save under way from a thread of its own, and tells its age at the limit and at each doubling."""

    def __init__(
        self,
        is_idle: threading.Event,
        busy_seconds: Callable[[], float],
        usual_seconds: Callable[[], float | None],
        tell: Callable[[float], None],
    ) -> None:
        self._is_idle, self._busy_seconds, self._usual_seconds, self._tell = is_idle, busy_seconds, usual_seconds, tell
        self._has_begun = threading.Event()
        threading.Thread(target=self._serve, name="spotproof-watch", daemon=True).start()

    def save_begins(self) -> None:
        """Look at the save that begins now."""
        self._has_begun.set()

    def _serve(self) -> None:
        while True:
            self._has_begun.wait()
            self._has_begun.clear()
            next_seconds = max(STALLED_SECONDS, _STALLED_FACTOR * (self._usual_seconds() or 0.0))
            while not self._is_idle.wait(max(0.01, next_seconds - self._busy_seconds())):
                if self._has_begun.is_set():
                    break  # it is another save by now
                age_seconds = self._busy_seconds()
                if age_seconds >= next_seconds:
                    self._tell(age_seconds)
                    next_seconds = 2 * age_seconds
