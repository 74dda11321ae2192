"""The sync agent of one host: copies a directory to S3 and back. It does not know what the files mean.

Source: SageMaker developer guide, "Use checkpoints"; the marker files: aws/sagemaker-xgboost-container
``checkpointing.py``. Period, order and settling rule of the real agent are not documented; see docs/fidelity.md.
"""

import contextlib
import logging
import os
import stat
import threading
import time
from io import RawIOBase
from pathlib import Path
from typing import IO, Final, cast

from spotproof.contract import IGNORE_SUFFIX, UPLOADED_SUFFIX, UPLOADING_SUFFIX
from spotproof.local.downloads import fetch_objects, list_objects
from spotproof.local.fault_desk import AgentFaults
from spotproof.local.sync_faults import Fate
from spotproof.storage import StorageUnavailable, checked_key
from spotproof.storage._s3 import S3Storage

__all__ = ["SyncAgent"]

_SKIPPED: Final = (IGNORE_SUFFIX, UPLOADING_SUFFIX, UPLOADED_SUFFIX)
_DRAIN_TRIES: Final = 3
_RESTORE_TRIES: Final = 4
_FIRST_PAUSE_SECONDS: Final = 0.5
"""Between two tries, doubled each time."""
_log = logging.getLogger(__name__)

_Signature = tuple[int, int, int]
"""Modification time, size, inode: a change of one means that the file has changed."""


class SyncAgent:
    """Keep ``s3://bucket/<prefix>`` like *folder*, as long as it runs.

    New and changed files go up whole, oldest first; what disappears here disappears there. Files never change *folder*
    while the job runs, except for the markers.
    """

    def __init__(
        self,
        folder: Path,
        storage: S3Storage,
        prefix: str,
        *,
        poll_seconds: float = 0.5,
        faults: AgentFaults | None = None,
    ) -> None:
        self._folder, self._storage, self._prefix = folder, storage, prefix
        self._poll_seconds = poll_seconds
        self._faults = faults or AgentFaults.none()
        self._known: dict[str, _Signature] = {}
        self._due_at: dict[str, float] = {}
        self._spoiled: set[str] = set()
        self._refused: set[str] = set()
        self._stop, self._is_abandoned = threading.Event(), threading.Event()
        self._started_at = 0.0
        self._thread: threading.Thread | None = None

    def restore(self) -> int:
        """Write every object below the prefix to the folder; return how many. Before :meth:`start`.

        What fails is tried again, for some minutes if need be.

        Raises:
            InterruptedError: Abandoned meanwhile.
            OSError: S3 failed again and again, or the disk did.
        """
        self._faults.begin_restore()
        for number in range(_RESTORE_TRIES):
            try:
                names = self._download(number)
                break
            except StorageUnavailable as error:
                if number == _RESTORE_TRIES - 1:
                    raise
                _log.warning("checkpoints of %s are brought again: %s", self._folder, error)
                self._is_abandoned.wait(_FIRST_PAUSE_SECONDS * 2**number)
        for name in names:
            self._known[name] = _signature(os.stat(self._folder / name))
        return len(names)

    def find_again(self, since: float) -> None:
        """Learn from the folder what an agent before this one, which was killed, had done; then :meth:`drain`.

        What has not changed since the commands began was restored, not made; what has a marker younger than itself is
        up; a marker alone is a file's that has been deleted. A file that was restored and deleted shortly before the
        kill stays in S3.

        Args:
            since: When the commands began, in seconds since 1970.
        """
        for directory, _, names, directory_fd in os.fwalk(self._folder, follow_symlinks=False):
            for last in names:
                own = last.removesuffix(UPLOADED_SUFFIX)
                name = os.path.relpath(os.path.join(directory, own), self._folder)
                marker = _status(own + UPLOADED_SUFFIX, directory_fd)
                found = _status(own, directory_fd)
                if found is None and marker is not None and self._is_acceptable(name):
                    self._known[name] = (0, 0, 0)
                elif found is not None and (
                    found.st_ctime < since or (marker is not None and marker.st_ctime_ns > found.st_ctime_ns)
                ):
                    self._known[name] = _signature(found)

    def _download(self, number: int) -> list[str]:
        does_break: bool | None = None

        def admit(name: str, done_share: float) -> bool:
            nonlocal does_break
            if does_break is None:  # asked with the first object: of none, no download breaks off
                does_break = self._faults.download_breaks(number)
            if does_break and done_share > 0.5:
                raise StorageUnavailable(f"The download of {self._storage.url} broke off (an injected fault).")
            return not self._faults.is_download_lost(name)

        keys = list_objects(self._storage, self._prefix)
        return fetch_objects(self._storage, keys, self._folder, is_abandoned=self._is_abandoned.is_set, admit=admit)

    def start(self) -> None:
        """Watch the folder from now on."""
        self._started_at = time.monotonic()
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

    def notice(self) -> None:
        """The job was told to leave: uploads go on until it is gone, unless a fault has it that nothing is flushed."""
        if not self._faults.is_flushed and not self._stop.is_set():
            self._stop.set()
            self._faults.not_flushed("nothing goes up from the notice on")

    def drain(self) -> None:
        """Upload what is left, and stop. For the end of a job, when nothing writes any more.

        Whatever the faults were, S3 holds all of the folder then, unless one of them is that nothing is flushed.

        Raises:
            OSError: S3 refused repeatedly.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self._faults.is_flushed:
            self._faults.not_flushed(f"{len(self._changed(self._scan()))} files left behind at the end")
            return
        for name in self._spoiled:
            self._known.pop(name, None)
        for attempt in range(_DRAIN_TRIES):
            if self._is_abandoned.is_set():
                return
            try:
                self._sync_all()
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
                if not self._is_stalled():
                    self._sync()
            except InterruptedError:
                return
            except OSError as error:
                if not is_failing:
                    _log.warning("checkpoint upload of %s fails and will be repeated: %s", self._folder, error)
                is_failing = True
            else:
                is_failing = False

    def _is_stalled(self) -> bool:
        return self._faults.is_stalled(time.monotonic() - self._started_at)

    def _sync(self) -> None:
        """One look: what has changed goes up as the faults have it, then what has gone is deleted."""
        found = self._scan()
        now = time.monotonic()
        changed = self._changed(found)
        for name in changed:
            if name not in self._due_at:
                self._due_at[name] = now + self._faults.delay_seconds(name)
        due = [name for name in changed if self._due_at[name] <= now]
        for number, names in enumerate(self._faults.order(due, {name: found[name][1] for name in due})):
            if number and self._stop.wait(self._poll_seconds):
                return
            for name in names:
                if self._stop.is_set() or self._is_stalled():
                    return
                self._upload(name, is_final=False)
        self._delete_gone(found)

    def _sync_all(self) -> None:
        """Make S3 like the folder; no fault is let in."""
        found = self._scan()
        for name in self._changed(found):
            self._upload(name, is_final=True)
        self._delete_gone(found)

    def _changed(self, found: dict[str, _Signature]) -> list[str]:
        """Return what differs from what went up, oldest change first."""
        changed = [name for name, signature in found.items() if self._known.get(name) != signature]
        return sorted(changed, key=lambda name: found[name])

    def _check_abandoned(self) -> None:
        if self._is_abandoned.is_set():
            raise InterruptedError("The agent was abandoned.")

    def _delete_gone(self, found: dict[str, _Signature]) -> None:
        for name in [name for name in self._due_at if name not in found]:
            del self._due_at[name]  # it has gone before it was due
        for name in [name for name in self._known if name not in found]:
            self._check_abandoned()
            self._storage.delete(_join(self._prefix, name))
            del self._known[name]
            self._spoiled.discard(name)
            self._faults.deleted(name)
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

    def _upload(self, name: str, *, is_final: bool) -> None:
        self._check_abandoned()
        try:
            with _Directory(self._folder, name) as (at, last):
                fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
                with os.fdopen(fd, "rb") as file:
                    # Taken before reading: a change during the upload makes it differ, and the next round repeats it.
                    signature = _signature(os.fstat(fd))
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(last + UPLOADED_SUFFIX, dir_fd=at)
                    _touch(last + UPLOADING_SUFFIX, at)
                    size = signature[1]
                    fate = Fate(outcome="whole") if is_final else self._faults.upload(name, size)
                    if fate.outcome != "lost":
                        key, sent = _join(self._prefix, name), _spoil(file, fate)
                        self._storage.put_file(key, sent, is_abandoned=self._is_abandoned.is_set)
                    _touch(last + UPLOADED_SUFFIX, at)
        except (FileNotFoundError, NotADirectoryError):
            if (self._folder / name).exists():
                raise  # it is the bucket that is gone
            return  # the job has removed it meanwhile; the next round deletes it
        self._known[name] = signature
        self._due_at.pop(name, None)
        if fate.outcome == "whole":
            self._spoiled.discard(name)
        else:
            self._spoiled.add(name)
        self._faults.uploaded(name, size, fate)


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


class _Spoiled(RawIOBase):
    """What is read of *file*, cut short or with one byte altered."""

    def __init__(self, file: IO[bytes], fate: Fate) -> None:
        self._file, self._fate, self._place = file, fate, 0

    def read(self, size: int = -1, /) -> bytes:
        at = self._fate.at_byte
        if self._fate.outcome == "torn":
            size = at - self._place if size < 0 else min(size, at - self._place)
        piece = self._file.read(size)
        begin, self._place = self._place, self._place + len(piece)
        if self._fate.outcome == "corrupt" and begin <= at < self._place:
            altered = bytearray(piece)
            altered[at - begin] ^= 0xFF
            return bytes(altered)
        return piece


def _spoil(file: IO[bytes], fate: Fate) -> IO[bytes]:
    return file if fate.outcome == "whole" else cast(IO[bytes], _Spoiled(file, fate))


def _touch(name: str, directory_fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # a marker is a courtesy; the job may have made the directory read-only
        os.close(os.open(name, flags, 0o644, dir_fd=directory_fd))


def _join(prefix: str, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}" if prefix.rstrip("/") else name


def _status(name: str, directory_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _signature(status: os.stat_result) -> _Signature:
    return (status.st_mtime_ns, status.st_size, status.st_ino)
