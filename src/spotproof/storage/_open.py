"""From a place's name to its storage."""

import os

from spotproof.storage._base import Storage
from spotproof.storage._local import LocalStorage

__all__ = ["open_storage"]


def open_storage(place: str | os.PathLike[str]) -> Storage:
    """Return the storage at *place*: ``s3://bucket/prefix`` or a directory. Touches neither.

    S3 credentials, region and endpoint come from the usual ``AWS_*`` variables and the shared AWS files.
    """
    name = os.fspath(place)
    if name.startswith("s3://"):
        from spotproof.storage._s3 import S3Storage  # obstore is loaded only where S3 is used

        return S3Storage.from_environment(name)
    return LocalStorage(name)
