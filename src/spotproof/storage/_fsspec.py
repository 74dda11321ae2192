"""``s3://`` for libraries that open files through fsspec, as Lightning does: our own client of S3."""

import importlib.util
import os
from pathlib import Path
from typing import Any

__all__ = ["serve_s3_urls"]


def serve_s3_urls() -> None:
    """Let fsspec open ``s3://`` in this process through obstore, as :func:`spotproof.storage.open_storage` does.

    Without it fsspec asks for s3fs. Where that is installed, or someone has registered something else, nothing changes.
    """
    import fsspec

    if importlib.util.find_spec("s3fs") is None and "s3" not in fsspec.registry:
        fsspec.register_implementation("s3", _filesystem(), clobber=True)


def _filesystem() -> type[Any]:
    from obstore.fsspec import FsspecStore

    from spotproof.storage._s3_client import open_store

    class S3FileSystem(FsspecStore):
        protocol = "s3"

        def _construct_store(self, bucket: str) -> Any:
            return open_store(bucket, os.environ, home=Path.home())

    return S3FileSystem
