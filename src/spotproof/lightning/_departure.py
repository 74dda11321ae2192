"""How an attempt ends: after a notice, with an error, or because the training is complete."""

import logging
from collections.abc import Callable
from typing import NoReturn

from spotproof.checkpoint import Checkpointer
from spotproof.contract import EXIT_INTERRUPTED
from spotproof.events import AttemptEnded, NoticeReceived
from spotproof.lightning._notice import Notice

__all__ = ["Departure"]

log = logging.getLogger(__name__)


class Departure:
    """Knows whether a notice came, leaves after it, and tells the end of the attempt once."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.notice = Notice()
        self._checkpointer = checkpointer
        self._has_ended = False

    def start(self) -> None:
        """Listen from here on."""
        self._has_ended = False
        self.notice.install()

    @property
    def is_wanted(self) -> bool:
        """Whether a notice came."""
        return self.notice.signal is not None

    def leave(self, step: int, save: Callable[[], None] | None) -> NoReturn:
        """Save if there is anything to save, wait until it is durable, and end the process."""
        assert self.notice.signal is not None
        attempt = self._checkpointer.begin()
        self._checkpointer.record(NoticeReceived(attempt=attempt, signal=self.notice.signal.name, step=step))
        if save is not None:
            save()
        self._checkpointer.wait()
        self.tell_end("notice", step)
        log.warning("%s: step %d is saved, leaving.", self.notice.signal.name, step)
        raise SystemExit(EXIT_INTERRUPTED)

    def tell_end(self, outcome: str, step: int) -> None:
        """Record how the attempt ended, unless that is told already."""
        if not self._has_ended:
            self._has_ended = True
            self._checkpointer.record(AttemptEnded(attempt=self._checkpointer.begin(), outcome=outcome, step=step))

    def stop(self) -> None:
        """Listen no longer; put signal handlers back."""
        self.notice.remove()
