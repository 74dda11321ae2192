"""A folder for the time of a command, which is gone in the end however the command ends."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["own_folder"]


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """Give a new folder among the temporary ones; *prefix* says whose, and begins no other folder's name.

    The process id follows it. Folders of commands that were killed are removed by the next one: nobody tidied up then.
    """
    _remove_orphans(prefix)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _remove_orphans(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        try:
            if not pid.isdigit() or folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another user's process has that number now
