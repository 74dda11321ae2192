"""Bring the newest checkpoint into memory while the program is still importing."""

import os
from pathlib import Path

from spotproof.errors import SpotError

__all__ = ["read_ahead"]


def read_ahead(directory: Path) -> int:
    """Ask the kernel to read the packs of the newest checkpoint in *directory*; return how many bytes were asked for.

    Importing torch takes seconds in which the disk is idle. Nothing is verified here: the program does that as it
    reads, at the speed of memory then. Never raises, for it is only a help.
    """
    if not hasattr(os, "posix_fadvise"):  # macOS
        return 0
    # Imported here, beside the program's own start, which waits for nothing.
    from spotproof.checkpoint.choose import committed_steps, read_manifest
    from spotproof.checkpoint.manifest import manifest_key
    from spotproof.storage import LocalStorage

    storage = LocalStorage(directory)
    asked = 0
    try:
        for step in committed_steps(storage)[:1]:
            for file in read_manifest(storage, manifest_key(step)).files:
                fd = os.open(directory / file.key, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(fd)
                asked += file.size_bytes
    except (OSError, SpotError):
        pass
    return asked
