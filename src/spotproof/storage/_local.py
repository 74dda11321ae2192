"""A directory as a storage, with atomic and durable writes."""

import os
from collections.abc import Iterable
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
    fsynced. Two writers of one key would share the staged name, so it also holds the process id.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    @property
    def url(self) -> str:
        return str(self.root)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def put(self, key: str, chunks: Iterable[Chunk]) -> None:
        target = self._path(key)
        _make_directories(target.parent)
        staged = target.with_name(f"{target.name}.{os.getpid()}{IGNORE_SUFFIX}")
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
            os.replace(staged, target)
        except OSError:
            # On a full disk the staged part is what fills it; after a kill the next writer's sweep removes it.
            staged.unlink(missing_ok=True)
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
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> list[Entry]:
        folder = self.root / prefix.rpartition("/")[0]
        entries = []
        for directory, _, names in os.walk(folder):
            for name in names:
                path = Path(directory, name)
                key = path.relative_to(self.root).as_posix()
                if not key.startswith(prefix) or name.endswith(_HIDDEN):
                    continue
                try:
                    entries.append(Entry(key, path.stat().st_size))
                except FileNotFoundError:  # deleted between the listing and the look
                    continue
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

    def sweep(self) -> None:
        """Remove what cut writes of earlier processes left. For the one writer, at its start."""
        for leftover in self.root.rglob(f"*{IGNORE_SUFFIX}"):
            leftover.unlink(missing_ok=True)


def _make_directories(path: Path) -> None:
    """Make *path* and its parents, durably: a new directory's entry lives in its parent."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(exist_ok=True)
    _fsync_directory(path.parent)


def _fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
