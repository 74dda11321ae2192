"""The seam: what every storage can do."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

__all__ = ["Chunk", "Entry", "Storage", "checked_key"]

Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object."""

    key: str
    size_bytes: int


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
        none, never a part of the new one, wherever the process is killed.

        Raises:
            OSError: The storage refused (full, read-only, unreachable). What was there before is still there.
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


def checked_key(key: str) -> str:
    """Return *key* if it stays inside its storage.

    Raises:
        ValueError: It is empty, absolute, or climbs out with ``..``.
    """
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\\" in key or "\0" in key:
        raise ValueError(f"Key {key!r} does not stay inside its storage.")
    return key
