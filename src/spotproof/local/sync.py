"""The sync agent of one host: copies a directory to S3 and back. It does not know what the files mean.

Source: SageMaker developer guide, "Use checkpoints"; the marker files: aws/sagemaker-xgboost-container
``checkpointing.py``. Period, order and settling rule of the real agent are not documented; see docs/fidelity.md.
"""

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from spotproof.contract import IGNORE_SUFFIX, UPLOADED_SUFFIX, UPLOADING_SUFFIX
from spotproof.storage import checked_key
from spotproof.storage._s3 import S3Storage

__all__ = ["SyncAgent", "download"]

_SKIPPED: Final = (IGNORE_SUFFIX, UPLOADING_SUFFIX, UPLOADED_SUFFIX)
_DRAIN_TRIES: Final = 3
_log = logging.getLogger(__name__)

_Signature = tuple[int, int, int]
"""Modification time, size, inode: a change of one means that the file has changed."""


class SyncAgent:
    """Keep ``s3://bucket/<prefix>`` like *folder*, as long as it runs.

    New and changed files go up whole, oldest first; what disappears here disappears there. Files never change *folder*
    while the job runs, except for the markers.
    """

    def __init__(self, folder: Path, storage: S3Storage, prefix: str, *, poll_seconds: float = 0.5) -> None:
        self._folder, self._storage, self._prefix = folder, storage, prefix
        self._poll_seconds = poll_seconds
        self._known: dict[str, _Signature] = {}
        self._refused: set[str] = set()
        self._stop, self._is_abandoned = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self) -> int:
        """Write every object below the prefix to the folder; return how many. Before :meth:`start`.

        Raises:
            InterruptedError: Abandoned meanwhile.
            OSError: S3 or the disk failed.
        """
        names = download(self._storage, self._prefix, self._folder, is_abandoned=self._is_abandoned.is_set)
        for name in names:
            self._known[name] = _signature(os.stat(self._folder / name))
        return len(names)

    def start(self) -> None:
        """Watch the folder from now on."""
        self._thread = threading.Thread(target=self._run, name=f"sync {self._folder}", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        """The machine is lost: from now on nothing is uploaded, and an upload under way is not completed."""
        self._is_abandoned.set()
        self._stop.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait until the agent has stopped, after :meth:`abandon`."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def drain(self) -> None:
        """Upload what is left, and stop. For the end of a job, when nothing writes any more.

        Raises:
            OSError: S3 refused repeatedly.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for attempt in range(_DRAIN_TRIES):
            if self._is_abandoned.is_set():
                return
            try:
                self._sync()
            except OSError:
                if attempt == _DRAIN_TRIES - 1:
                    raise
                self._is_abandoned.wait(self._poll_seconds)
            else:
                return

    def _run(self) -> None:
        is_failing = False
        while not self._stop.wait(self._poll_seconds):
            try:
                self._sync()
            except InterruptedError:
                return
            except OSError as error:
                if not is_failing:
                    _log.warning("checkpoint upload of %s fails and will be repeated: %s", self._folder, error)
                is_failing = True
            else:
                is_failing = False

    def _sync(self) -> None:
        found = self._scan()
        changed = [name for name, signature in found.items() if self._known.get(name) != signature]
        for name in sorted(changed, key=lambda name: found[name]):
            if self._is_abandoned.is_set():
                raise InterruptedError("The agent was abandoned.")
            self._upload(name)
        for name in [name for name in self._known if name not in found]:
            if self._is_abandoned.is_set():
                raise InterruptedError("The agent was abandoned.")
            self._storage.delete(_join(self._prefix, name))
            del self._known[name]
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                _Directory(self._folder, name) as (at, last),
            ):
                for suffix in (UPLOADING_SUFFIX, UPLOADED_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(last + suffix, dir_fd=at)

    def _scan(self) -> dict[str, _Signature]:
        """Return the regular files; links are not followed, they could lead out of the folder."""
        found = {}
        for directory, _, names, directory_fd in os.fwalk(self._folder, follow_symlinks=False):
            for last in names:
                if last.endswith(_SKIPPED):
                    continue
                name = os.path.relpath(os.path.join(directory, last), self._folder)
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(last, dir_fd=directory_fd, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and self._is_acceptable(name):
                        found[name] = _signature(status)
        return found

    def _is_acceptable(self, name: str) -> bool:
        try:
            checked_key(name)
            name.encode()
        except ValueError as error:
            if name not in self._refused:
                self._refused.add(name)
                _log.warning("checkpoint file %r is not uploaded: %s", name, error)
            return False
        return True

    def _upload(self, name: str) -> None:
        try:
            with _Directory(self._folder, name) as (at, last):
                fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
                with os.fdopen(fd, "rb") as file:
                    # Taken before reading: a change during the upload makes it differ, and the next round repeats it.
                    signature = _signature(os.fstat(fd))
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(last + UPLOADED_SUFFIX, dir_fd=at)
                    _touch(last + UPLOADING_SUFFIX, at)
                    self._storage.put_file(_join(self._prefix, name), file, is_abandoned=self._is_abandoned.is_set)
                    _touch(last + UPLOADED_SUFFIX, at)
        except (FileNotFoundError, NotADirectoryError):
            if (self._folder / name).exists():
                raise  # it is the bucket that is gone
            return  # the job has removed it meanwhile; the next round deletes it
        self._known[name] = signature


def download(
    storage: S3Storage, prefix: str, folder: Path, *, is_abandoned: Callable[[], bool] = lambda: False
) -> list[str]:
    """Write the objects whose keys start with *prefix* below *folder*; return their names there.

    A name is what follows the prefix. The prefix is one of characters, as S3's are: without a slash at its end it also
    matches longer names. A key that would leave the folder, or is a folder's place holder, is skipped.

    Raises:
        InterruptedError: Abandoned meanwhile.
        OSError: S3 or the disk failed.
    """
    entries = {entry.key[len(prefix) :].lstrip("/"): entry for entry in storage.list(prefix)}
    names = []
    for name, entry in entries.items():
        if is_abandoned():
            raise InterruptedError("The download was abandoned.")
        is_placeholder = not name or (entry.size_bytes == 0 and any(other.startswith(name + "/") for other in entries))
        if is_placeholder:
            continue
        try:
            target = folder / checked_key(name)
        except ValueError as error:
            _log.warning("object %s of %s is not downloaded: %s", entry.key, storage.url, error)
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for piece in storage.stream(entry.key):
                    file.write(piece)
                    if is_abandoned():
                        raise InterruptedError("The download was abandoned.")
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            _log.warning("object %s of %s is not downloaded: another is in its way", entry.key, storage.url)
            continue
        except FileNotFoundError:  # deleted between the listing and the look
            target.unlink(missing_ok=True)
            continue
        names.append(name)
    return names


class _Directory:
    """Open the directory that holds *name* below *folder* without following a link on the way."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def __enter__(self) -> tuple[int, str]:
        *directories, last = self._name.split("/")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._folder, flags)
        for directory in directories:
            try:
                inner = os.open(directory, flags, dir_fd=self._fd)
            finally:
                os.close(self._fd)
            self._fd = inner
        return self._fd, last

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _touch(name: str, directory_fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # a marker is a courtesy; the job may have made the directory read-only
        os.close(os.open(name, flags, 0o644, dir_fd=directory_fd))


def _join(prefix: str, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}" if prefix.rstrip("/") else name


def _signature(status: os.stat_result) -> _Signature:
    return (status.st_mtime_ns, status.st_size, status.st_ino)
