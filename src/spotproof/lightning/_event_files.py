"""TensorBoard's event files as part of the checkpoint: after an interruption they are what they were when it was made.

What was logged last lies in the checkpoint itself. A mirror that was behind, a file that was torn, a buffer that died
with the machine leave no hole; and what was logged after the checkpoint is taken out of the files, so that every reader
sees one curve. It is kept beside them under another name.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from spotproof.contract import EVENT_FILE_WORD, SUPERSEDED_PREFIX
from spotproof.storage import Storage

__all__ = ["CARRIED_BYTES", "EventFiles", "put_all_aside"]

CARRIED_BYTES: Final = 256 * 1024
"""Of the newest events, at most, go into each checkpoint: some four thousand points. A hole would need a mirror that is
further behind than that."""

_MADE_AT: Final = re.compile(rf"{EVENT_FILE_WORD}\.(\d+)\.(?!.*\.sagemaker-[a-z]+$)")
"""Not the mirror's marks beside them."""
_HEADER: Final = struct.Struct("<QI")
_FOOTER_BYTES: Final = 4


@dataclass(slots=True)
class _Carried:
    offset: int = 0
    """Where in its file the content begins."""
    content: bytearray = field(default_factory=bytearray)
    path: Path | None = None
    """Where this process writes it; None for a file of an earlier attempt."""

    @property
    def end(self) -> int:
        return self.offset + len(self.content)


class EventFiles:
    """The event files of one logger, over all attempts.

    Args:
        folder: Where this process writes them.
        carried_bytes: How much of them to keep for the checkpoint.
    """

    def __init__(self, folder: Path, *, carried_bytes: int = CARRIED_BYTES) -> None:
        self.folder = folder
        self._carried_bytes = carried_bytes
        self._files: dict[str, _Carried] = {}

    def read(self, paths: Iterable[str]) -> None:
        """Take in what has come to the files that this process has open, *paths*."""
        for text in paths:
            path = Path(text)
            self._files.setdefault(self._key(path), _Carried()).path = path
        for carried in self._files.values():
            if carried.path is not None and carried.path.exists():
                with carried.path.open("rb") as file:
                    file.seek(carried.end)
                    new = file.read()
                carried.content += new[: _whole_records(new)]
        self._trim()

    def state_dict(self) -> dict[str, Any]:
        """Return for each file, by its name in the folder, where the carried content begins, and the content."""
        return {
            key: {"offset": carried.offset, "content": bytes(carried.content)} for key, carried in self._files.items()
        }

    def restore(self, state: dict[str, Any], place: Storage) -> int:
        """Make the files in *place* what they were; return how many bytes of them are lost for good.

        A file that is neither there nor carried from its beginning is left alone: where a platform mirrors a folder out
        and never back, it is whole outside.
        """
        own = set(self._files)
        known = {key: _Carried(int(each["offset"]), bytearray(each["content"])) for key, each in state.items()}
        lost = sum(_restore_file(place, key, carried) for key, carried in known.items())
        began = min((made_at for key in known if (made_at := _made_at(key)) is not None), default=None)
        for entry in place.list():
            made_at = _made_at(entry.key)
            if made_at is None or began is None or made_at < began or entry.key in known or entry.key in own:
                continue
            # Of an attempt that was gone before a checkpoint told of it.
            _put_aside(place, entry.key, place.get(entry.key), 0)
            place.delete(entry.key)
        self._files = {**known, **self._files}
        return lost

    def _key(self, path: Path) -> str:
        return path.resolve().relative_to(self.folder.resolve()).as_posix()

    def _trim(self) -> None:
        excess = sum(len(carried.content) for carried in self._files.values()) - self._carried_bytes
        for _, carried in sorted(self._files.items(), key=lambda item: (_made_at(item[0]) or 0, item[0])):
            if excess <= 0:
                return
            cut = _records_within(carried.content, excess)
            del carried.content[:cut]
            carried.offset += cut
            excess -= cut


def put_all_aside(place: Storage, *, but: Iterable[str]) -> None:
    """Make all event files in *place* void, except the named ones at its top."""
    kept = set(but)
    for entry in place.list():
        if _made_at(entry.key) is not None and entry.key not in kept:
            _put_aside(place, entry.key, place.get(entry.key), 0)
            place.delete(entry.key)


def _restore_file(place: Storage, key: str, carried: _Carried) -> int:
    try:
        found = place.get(key)
    except FileNotFoundError:
        if carried.offset:
            return 0
        found = b""
    head = found[: carried.offset]
    head = head[: _whole_records(head)]
    wanted = head + bytes(carried.content)
    if found != wanted:
        if len(found) > carried.end:
            _put_aside(place, key, found[carried.end :], carried.end)
        place.put(key, [wanted])
    lost = carried.offset - len(head)
    carried.offset = len(head)
    return lost


def _put_aside(place: Storage, key: str, events: bytes, offset: int) -> None:
    directory, slash, name = key.rpartition("/")
    rest = name.partition(f"{EVENT_FILE_WORD}.")[2]
    place.put(f"{directory}{slash}{SUPERSEDED_PREFIX}{rest}.{offset}", [events])


def _made_at(key: str) -> int | None:
    """Return the second in which an event file was made, by its name; None for other files."""
    found = _MADE_AT.search(key.rpartition("/")[2])
    return int(found[1]) if found and not key.rpartition("/")[2].startswith(SUPERSEDED_PREFIX) else None


def _records_within(data: bytes | bytearray, least: int) -> int:
    """Return where the first record ends that ends at *least* or later, or the last whole one.

    Source: TFRecord: length (uint64), its masked CRC, the data, their masked CRC.
    """
    end = 0
    while end < least and end + _HEADER.size <= len(data):
        length = _HEADER.unpack_from(data, end)[0]
        following = end + _HEADER.size + length + _FOOTER_BYTES
        if following > len(data):
            break
        end = following
    return end


def _whole_records(data: bytes | bytearray) -> int:
    """Return the bytes of *data* up to the end of its last whole record."""
    return _records_within(data, len(data))
