"""What is to be uploaded: the files of a folder, and their content."""

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spotproof.errors import SpecError

__all__ = ["LocalFile", "LocalFiles", "read_files"]

_CHUNK_BYTES = 2**20
_DIGEST_CHARS = 20


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file, as it was when it was read."""

    name: str
    """Below the folder, with ``/`` on every system."""
    path: Path
    size_bytes: int
    changed_at_ns: int
    """Time of its last change, to notice one that comes during the upload."""
    sha256: str
    """Of its content, in hex."""

    def is_unchanged(self) -> bool:
        """Return whether the file is, by its size and time, what was read."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size_bytes, self.changed_at_ns)


@dataclass(frozen=True)
class LocalFiles:
    """All files of an input, sorted by name."""

    source: Path
    files: tuple[LocalFile, ...]
    linked_folders: tuple[str, ...] = ()
    """Links to folders, which were left out: they may lead back to where they are."""

    @cached_property
    def digest(self) -> str:
        """Names and contents in a short text: other data has another one."""
        listing = "\0".join(f"{file.name}\0{file.sha256}" for file in self.files)
        return hashlib.sha256(listing.encode()).hexdigest()[:_DIGEST_CHARS]

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


def read_files(source: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> LocalFiles:
    """Return the file or the files of the folder *source*, each read once. Links to folders are not followed.

    Args:
        source: What is to be uploaded.
        on_bytes: Called with the number of bytes that were read since the last call, from several threads.

    Raises:
        SpecError: There is none, one can't be read, or one's name is no text.
    """
    named, linked = ({source.name: source}, ()) if source.is_file() else _files_below(source)
    if not named:
        raise SpecError(
            f"Input {source} holds no file.", why="The service refuses an empty input.", do="Correct the path."
        )

    def read(item: tuple[str, Path]) -> LocalFile:
        name, path = item
        return _read_file(name, path, on_bytes)

    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 2)) as pool:
        return LocalFiles(source, tuple(pool.map(read, sorted(named.items()))), linked)


def _read_file(name: str, path: Path, on_bytes: Callable[[int], None]) -> LocalFile:
    digest = hashlib.sha256()
    try:
        name.encode()
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would be to wait for who writes to it
            raise SpecError(f"{path} is no file: a pipe, a socket or a device.", do="Remove it from the input.")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                on_bytes(len(chunk))
    except UnicodeEncodeError as error:
        raise SpecError(f"The name of {str(path)!r} is no text (UTF-8).", do="Rename it.") from error
    except OSError as error:
        raise SpecError(
            f"{path} can't be read: {error.strerror}.", why="It is part of an input.", do="Correct or remove it."
        ) from error
    return LocalFile(name, path, before.st_size, before.st_mtime_ns, digest.hexdigest())


def _files_below(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the files by their names, and the names of links to folders."""
    found: dict[str, Path] = {}
    linked: list[str] = []
    for directory, folders, names in os.walk(folder):
        below = Path(directory).relative_to(folder)
        found.update({(below / name).as_posix(): Path(directory, name) for name in names})
        linked += [(below / name).as_posix() for name in folders if Path(directory, name).is_symlink()]
    return found, tuple(sorted(linked))
