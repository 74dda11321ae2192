"""model.tar.gz and output.tar.gz: what the hosts left, packed and put where OutputDataConfig says."""

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spotproof.storage._s3 import S3Storage, split_s3_url

__all__ = ["artifact_url", "upload_tree"]


def artifact_url(output_url: str, job_name: str, name: str) -> str:
    """Return where an artifact goes: ``<S3OutputPath>/<job>/output/<name>``."""
    return f"{output_url.rstrip('/')}/{job_name}/output/{name}"


def upload_tree(folders: Sequence[Path], storage: S3Storage, url: str, scratch: Path) -> bool:
    """Put a tar.gz with the content of *folders* at its root to *url*; return whether there was any.

    Files of the same name in several hosts' folders: the last host's wins, once. An empty tree makes no object.

    Raises:
        OSError: S3 or the disk failed.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for directory, subdirectories, names in os.walk(folder):
            for name in [*subdirectories, *names]:
                path = Path(directory, name)
                files[path.relative_to(folder).as_posix()] = path
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
