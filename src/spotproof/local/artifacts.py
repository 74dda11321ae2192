"""What the hosts left, put where OutputDataConfig says: as model.tar.gz and output.tar.gz, or file by file."""

import contextlib
import io
import logging
import os
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from spotproof.storage import checked_key
from spotproof.storage._s3 import S3Storage, split_s3_url

__all__ = ["artifact_url", "find_folders", "upload_files", "upload_tree"]

_log = logging.getLogger(__name__)


def artifact_url(output_url: str, job_name: str, name: str) -> str:
    """Return where an artifact goes: ``<S3OutputPath>/<job>/output/<name>``."""
    return f"{output_url.rstrip('/')}/{job_name}/output/{name}"


def find_folders(ml_dirs: Iterable[Path], name: str) -> list[Path]:
    """Return the folder *name*, such as ``output/data``, of each host's ``/opt/ml``.

    Not one in whose place, or in whose parent's place, the job has put a link: it could lead anywhere on this machine.
    """
    found = []
    for ml_dir in ml_dirs:
        folder = ml_dir / name
        if folder.is_symlink() or os.path.realpath(folder) != os.path.join(os.path.realpath(ml_dir), name):
            _log.warning("nothing of %s is uploaded: the job has put a link in its place", folder)
        else:
            found.append(folder)
    return found


def upload_tree(folders: Sequence[Path], storage: S3Storage, url: str, scratch: Path) -> bool:
    """Put a tar.gz with the content of *folders* at its root to *url*; return whether there was any.

    Files of the same name in several hosts' folders: the last host's wins, once. An empty tree makes no object.

    Raises:
        OSError: S3 or the disk failed.
    """
    files = _merge(folders)
    if not files:
        return False
    with tempfile.TemporaryFile(dir=scratch) as packed:
        # Level 1: weights hardly compress, and the job waits for it.
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
            for name, path in sorted(files.items()):
                with contextlib.suppress(FileNotFoundError):  # a socket or the like
                    archive.add(path, arcname=name, recursive=False)
        packed.seek(0, io.SEEK_SET)
        storage.put_file(split_s3_url(url)[1], packed)
    return True


def upload_files(folders: Sequence[Path], storage: S3Storage, url: str) -> int:
    """Put each file in *folders* to S3 below *url*, as it is; return how many.

    Files of the same name in several hosts' folders: the last host's wins. What a link leads to goes up in its place if
    it is in the same folder; S3 has no links and no empty directories.

    Raises:
        OSError: S3 or the disk failed.
    """
    prefix = split_s3_url(url)[1].rstrip("/")
    count = 0
    for name, path in sorted(_merge(folders).items()):
        real = Path(os.path.realpath(path))  # Path.resolve() raises where links lead in a circle
        is_inside = any(real.is_relative_to(folder.resolve()) for folder in folders)
        if real.is_dir():
            continue
        if not (is_inside and real.is_file()):
            _log.warning("%s is not uploaded: it is no file of its folder", path)
            continue
        try:
            key = checked_key(f"{prefix}/{name}" if prefix else name)
        except ValueError as error:
            _log.warning("%s is not uploaded: %s", path, error)
            continue
        with real.open("rb") as file:
            storage.put_file(key, file)
        count += 1
    return count


def _merge(folders: Sequence[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for folder in folders:
        for directory, subdirectories, names in os.walk(folder):
            for name in [*subdirectories, *names]:
                path = Path(directory, name)
                files[path.relative_to(folder).as_posix()] = path
    return files
