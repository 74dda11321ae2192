"""Where bytes live: a handful of verbs over a local directory or an S3 prefix.

In: keys (relative, ``/``-separated) and bytes. Out: bytes. Who may import it: ``checkpoint`` and everything above.
Loads neither torch nor boto3; obstore only when S3 is used.
"""

from spotproof.storage._base import Chunk, Entry, Storage, StorageUnavailable, checked_key
from spotproof.storage._fsspec import serve_s3_urls
from spotproof.storage._local import LocalStorage
from spotproof.storage._open import open_storage

__all__ = [
    "Chunk",
    "Entry",
    "LocalStorage",
    "Storage",
    "StorageUnavailable",
    "checked_key",
    "open_storage",
    "serve_s3_urls",
]
