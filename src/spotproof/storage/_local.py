"""A directory as a storage, with atomic and durable writes."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from spotproof.contract import IGNORE_SUFFIX, UPLOADED_SUFFIX, UPLOADING_SUFFIX
from spotproof.storage._base import Chunk, Entry, checked_key

__all__ = ["LocalStorage"]

_HIDDEN = (IGNORE_SUFFIX, UPLOADING_SUFFIX, UPLOADED_SUFFIX)


class LocalStorage:
    """Objects are files below *root*; the directory is made at the first write.

    A write goes to ``<name>.sagemaker-ignore`` beside its target (SageMaker's sync agent skips that suffix, and a
    rename within one directory is atomic, which a move from TMPDIR is not), is fsynced, renamed, and the directory is
    fsynced. Two writers of one key, perhaps in containers with the same process ids, would share the staged name; so
    it also holds a random part.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self._token = secrets.token_hex(4)

    @property
    def url(self) -> str:
        return str(self.root)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def put(self, key: str, chunks: Iterable[Chunk]) -> None:
        self._write(key, chunks, os.replace)

    def create(self, key: str, chunks: Iterable[Chunk]) -> None:
        self._write(key, chunks, _place_new)

    def put_if(self, key: str, chunks: Iterable[Chunk], check: Callable[[bytes | None], object]) -> None:
        def place(staged: Path, target: Path) -> None:
            # Staged first, looked second: a later writer makes itself known first and sweeps second. So either it is
            # seen here, or what is staged is gone and the rename fails, however long this process sleeps in between.
            try:
                current = target.read_bytes()
            except FileNotFoundError:
                current = None
            check(current)
            os.replace(staged, target)

        self._write(key, chunks, place)

    def _write(self, key: str, chunks: Iterable[Chunk], place: Callable[[Path, Path], object]) -> None:
        target = self._path(key)
        _make_directories(target.parent)
        staged = target.with_name(f"{target.name}.{os.getpid()}-{self._token}{IGNORE_SUFFIX}")
        try:
            fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                for chunk in chunks:
                    view = memoryview(chunk).cast("B")
                    while view:
                        view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            place(staged, target)
        except Exception:
            # On a full disk the staged part is what fills it; after a kill the next writer's sweep removes it.
            _unlink_if_possible(staged)
            raise
        _fsync_directory(target.parent)

    def get(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        # Unbuffered: what reads whole packs has buffers of its own.
        return open(self._path(key), "rb", buffering=0)

    def head(self, key: str) -> Entry | None:
        try:
            path = self._path(key)
            return Entry(key, path.stat().st_size) if path.is_file() else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, prefix: str = "") -> list[Entry]:
        folder = self.root / prefix.rpartition("/")[0]
        entries = []
        # A folder that can't be looked into must not pass for an empty one: a run would begin anew in it.
        for directory, _, names in os.walk(folder, onerror=_raise_unless_missing):
            for name in names:
                path = Path(directory, name)
                key = path.relative_to(self.root).as_posix()
                if not key.startswith(prefix) or name.endswith(_HIDDEN):
                    continue
                try:
                    status = path.stat()
                except OSError as err:
                    if err.errno not in (errno.ENOENT, errno.ELOOP):
                        raise
                    continue  # deleted between the listing and the look, or a link to nothing
                if stat.S_ISREG(status.st_mode):  # to read a pipe would be to wait
                    entries.append(Entry(key, status.st_size))
        return sorted(entries, key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def mirrored_keys(self) -> set[str] | None:
        """Return the keys that the platform's sync agent has uploaded; None if no agent has shown itself here.

        Source: the marker files of SageMaker's agent, aws/sagemaker-xgboost-container ``checkpointing.py``.
        """
        keys: set[str] = set()
        seen = False
        for directory, _, names in os.walk(self.root):
            for name in names:
                seen = seen or name.endswith((UPLOADED_SUFFIX, UPLOADING_SUFFIX))
                if name.endswith(UPLOADED_SUFFIX):
                    path = Path(directory, name.removesuffix(UPLOADED_SUFFIX))
                    keys.add(path.relative_to(self.root).as_posix())
        return keys if seen else None

    def check_access(self) -> None:
        return None  # made at the first write; that may fail for reasons that pass

    def sweep(self) -> None:
        for leftover in self.root.rglob(f"*{IGNORE_SUFFIX}"):
            _unlink_if_possible(leftover)

    def check_writable(self) -> None:
        """Return if files can be made and removed here; makes the directory.

        Raises:
            OSError: They can't.
        """
        _make_directories(self.root)
        probe = self.root / f"probe.{os.getpid()}{IGNORE_SUFFIX}"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        probe.unlink()


_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _place_new(staged: Path, target: Path) -> None:
    """Give *staged* the name *target*, which nobody has yet. A link, unlike a rename, replaces nothing."""
    try:
        os.link(staged, target)
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        # A file system without links: the name is taken first and filled second; who comes between sees it empty.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        os.replace(staged, target)
        return
    staged.unlink(missing_ok=True)


def _make_directories(path: Path) -> None:
    """Make *path* and its parents, durably: a new directory's entry lives in its parent."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(exist_ok=True)
    _fsync_directory(path.parent)


def _unlink_if_possible(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a leftover harms nobody; what led here is what must be told
        pass


def _raise_unless_missing(err: OSError) -> None:
    if not isinstance(err, (FileNotFoundError, NotADirectoryError)):
        raise err


def _fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
