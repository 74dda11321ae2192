"""The seam: what every storage can do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

__all__ = ["Chunk", "Entry", "Storage", "StorageUnavailable", "checked_key"]

Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object."""

    key: str
    size_bytes: int


class StorageUnavailable(ConnectionError):
    """The storage did not answer, or refused to: this says nothing about the object that was asked for."""


class Storage(Protocol):
    """A flat space of immutable or replaced-as-a-whole objects.

    Names follow object stores, not file systems: there are no directories, only keys with slashes.
    """

    @property
    def url(self) -> str:
        """Where this is, for messages: a path or ``s3://bucket/prefix``."""
        ...

    def put(self, key: str, chunks: Iterable[Chunk]) -> None:
        """Store the concatenated *chunks* under *key*, replacing what was there.

        Atomic and durable: once it returns the object survives a power cut; until then readers see the old object or
        none, never a part of the new one, wherever the process is killed. The chunks are not copied: they must not
        change before it returns.

        Raises:
            OSError: The storage refused (full, read-only, unreachable). What was there before is still there.
        """
        ...

    def create(self, key: str, chunks: Iterable[Chunk]) -> None:
        """Store as :meth:`put` does, but only if there is no object *key*: of several who try, one succeeds.

        For small objects whose content tells who made them.

        Raises:
            FileExistsError: There is one; it is left as it is.
            OSError: The storage refused.
        """
        ...

    def put_if(self, key: str, chunks: Iterable[Chunk], check: Callable[[bytes | None], object]) -> None:
        """Store as :meth:`put` does, if *check* lets it happen. For small objects that several may want to write.

        *check* is given what lies there, or None, as the last thing before the object is replaced. Whatever it raises
        is raised here, and nothing has changed. What it has seen is what is replaced: in an object store by a
        conditional put, in a directory because :meth:`sweep` takes away what the writers before it have staged.

        Raises:
            OSError: The storage refused.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            FileNotFoundError: There is none.
            OSError: It could not be read.
        """
        ...

    def open(self, key: str) -> BinaryIO:
        """Return the object for reading from its start; errors as :meth:`get`."""
        ...

    def head(self, key: str) -> Entry | None:
        """Return the object's entry, or None if there is none."""
        ...

    def list(self, prefix: str = "") -> list[Entry]:
        """Return the objects whose keys start with *prefix*, sorted by key. Leftovers of cut writes are not listed."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; do nothing if there is none."""
        ...

    def sweep(self) -> None:
        """Remove what cut writes of other writers left, and make those fail that they have begun.

        For the one writer, at its start. An object store shows nothing of them.
        """
        ...

    def check_access(self) -> None:
        """Return if the storage can be reached and listed. A directory need not be there yet.

        Raises:
            SpecError: It can't; says why, and what to do.
        """
        ...


def checked_key(key: str) -> str:
    """Return *key* if it stays inside its storage.

    Raises:
        ValueError: It is empty, absolute, or climbs out with ``..``.
    """
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\\" in key or "\0" in key:
        raise ValueError(f"Key {key!r} does not stay inside its storage.")
    return key
