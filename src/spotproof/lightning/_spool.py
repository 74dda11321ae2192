"""Event files on their way to S3: written to a folder of this machine, uploaded beside the training.

TensorBoard's own way to S3 rewrites the whole object within ``log()``, and an S3 that does not answer ends the
training.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from spotproof.storage import Storage

__all__ = ["Spool"]

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0
_SHARE: Final = 50
"""Uploads take a fiftieth of the time at most: a file is uploaded as a whole, and it grows."""
_PATIENCE_SECONDS: Final = 60.0
"""The end waits so long for the last upload: the checkpoint has the events, too."""


class Spool:
    """Uploads the files of *folder* that have changed, from time to time and at the end.

    Args:
        folder: The local folder.
        place: Where they go.
        warn: Told once when that fails; it is tried again.
    """

    def __init__(self, folder: Path, place: Storage, warn: Callable[[str], None]) -> None:
        self._folder, self._place, self._warn = folder, place, warn
        self._sizes: dict[str, int] = {}
        self._has_warned = False
        self._lock = threading.Lock()
        self._wanted, self._done = threading.Event(), threading.Condition()
        self._asked = self._answered = 0
        self._thread = threading.Thread(target=self._run, name="spotproof-event-files", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Upload what is there now; after a minute give up, and say so."""
        with self._done:
            self._asked += 1
            asked = self._asked
            self._wanted.set()
            if not self._done.wait_for(lambda: self._answered >= asked, _PATIENCE_SECONDS):
                log.warning("The last of what TensorBoard shows is not in %s. A checkpoint has it.", self._place.url)

    def _run(self) -> None:
        pause = 0.0
        while True:
            self._wanted.wait(pause)
            self._wanted.clear()
            asked = self._asked
            began = time.monotonic()
            is_done = self._upload()
            pause = max(_PAUSE_SECONDS, _SHARE * (time.monotonic() - began))
            if is_done:
                with self._done:
                    self._answered = max(self._answered, asked)
                    self._done.notify_all()

    def _upload(self) -> bool:
        try:
            for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
                key, size = path.relative_to(self._folder).as_posix(), path.stat().st_size
                if self._sizes.get(key) != size:
                    data = path.read_bytes()
                    self._place.put(key, [data])
                    self._sizes[key] = len(data)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"What TensorBoard shows could not be written to {self._place.url}: {error} It is tried again; "
                    "training goes on, and its checkpoints have it, too."
                )
            return False
        return True
