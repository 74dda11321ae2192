"""Objects to files below a folder: what a prefix names there, and the writing of it."""

import logging
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from spotproof.storage import checked_key
from spotproof.storage._s3 import S3Storage

__all__ = ["fetch_objects", "list_objects"]

_log = logging.getLogger(__name__)


def list_objects(storage: S3Storage, prefix: str) -> dict[str, str]:
    """Return the keys that start with *prefix* by the names that they get in a folder, in the order of the keys.

    A name is what follows the prefix. The prefix is one of characters, as S3's are: without a slash at its end it also
    matches longer names. A folder's place holder has no name.

    Raises:
        OSError: S3 failed.
    """
    entries = {entry.key[len(prefix) :].lstrip("/"): entry for entry in storage.list(prefix)}
    folders = {parent for name in entries for parent in _parents(name)}
    return {
        name: entry.key for name, entry in entries.items() if name and (entry.size_bytes > 0 or name not in folders)
    }


def fetch_objects(
    storage: S3Storage,
    keys: Mapping[str, str],
    folder: Path,
    *,
    is_abandoned: Callable[[], bool] = lambda: False,
    convert: Callable[[Iterable[bytes]], Iterator[bytes]] = iter,
    admit: Callable[[str, float], bool] = lambda *_: True,
) -> list[str]:
    """Write the objects *keys* below *folder*, under their names; return the names of those that were written.

    A name that would leave the folder is skipped, and so is an object that is gone by now.

    Args:
        storage: The bucket.
        keys: Key by name.
        folder: Is there.
        is_abandoned: Asked again and again; once true, the download ends.
        convert: From an object's bytes to the file's.
        admit: Asked before each object, with its name and the share of the objects that are done; whether to bring it.

    Raises:
        InterruptedError: Abandoned meanwhile.
        OSError: S3 or the disk failed.
    """
    names = []
    for index, (name, key) in enumerate(keys.items()):
        if is_abandoned():
            raise InterruptedError("The download was abandoned.")
        if not admit(name, (index + 1) / len(keys)):
            continue
        try:
            target = folder / checked_key(name)
        except ValueError as error:
            _log.warning("object %s of %s is not downloaded: %s", key, storage.url, error)
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for piece in convert(storage.stream(key)):
                    file.write(piece)
                    if is_abandoned():
                        raise InterruptedError("The download was abandoned.")
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            _log.warning("object %s of %s is not downloaded: another is in its way", key, storage.url)
            continue
        except FileNotFoundError:  # deleted between the listing and the look
            target.unlink(missing_ok=True)
            continue
        names.append(name)
    return names


def _parents(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name
