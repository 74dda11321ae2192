"""A prefix of an S3 bucket as a storage, over obstore."""

import builtins
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from spotproof.errors import SpecError
from spotproof.storage._base import Chunk, Entry, StorageUnavailable, checked_key
from spotproof.storage._s3_client import open_store
from spotproof.storage._s3_reader import S3Reader

__all__ = ["S3Storage", "split_s3_url"]

_PART_BYTES: Final = 16 * 1024 * 1024
_MAX_PARTS: Final = 10_000
_ONE_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Up to here an object goes up in one PUT; above, in parts that S3 shows only when all are there."""
_TRIES: Final = 5
_FIRST_PAUSE_SECONDS: Final = 0.2
"""Between two tries of a conditional put, doubled each time, with jitter. obstore repeats all other requests itself."""
_jitter = random.Random()
"""Not the global generator, which is a part of the training's state."""


_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,254}")
"""A little wider than AWS's rule, which other servers relax."""


def split_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and key prefix of ``s3://bucket/prefix``; the prefix as it is, with or without a slash at its end.

    Raises:
        SpecError: It is no such URL.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        raise SpecError(f"{url!r} is not an S3 URL.", do="Write s3://bucket/prefix.")
    is_strange = any(part in (".", "..") for part in prefix.split("/")) or "\0" in prefix or not _is_utf8(prefix)
    if is_strange:
        raise SpecError(f"{url!r} has a prefix that can't be used:", why="it holds '.', '..' or no text.")
    return bucket, prefix


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class S3Storage:
    """Objects are those of *bucket* below *prefix*; S3 itself makes each put atomic and durable.

    Keys never climb out of the prefix. Only the verbs touch the network.
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, environment: Mapping[str, str], home: Path | None = None
    ) -> None:
        split_s3_url(f"s3://{bucket}/{prefix}")  # obstore panics at what can't be part of a URL
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._store = open_store(bucket, environment, home=home)

    @classmethod
    def from_environment(cls, url: str) -> "S3Storage":
        """Return the storage at ``s3://bucket/prefix``, reached as the environment and the shared AWS files say.

        See :func:`spotproof.storage._s3_client.open_store`.
        """
        bucket, prefix = split_s3_url(url)
        return cls(bucket, prefix, environment=os.environ, home=Path.home())

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def _key(self, key: str) -> str:
        checked_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    def put(self, key: str, chunks: Iterable[Chunk]) -> None:
        path = self._key(key)
        part_bytes = _PART_BYTES
        if isinstance(chunks, Sequence):
            part_bytes = max(part_bytes, -(-sum(memoryview(chunk).nbytes for chunk in chunks) // _MAX_PARTS))
        pieces = (memoryview(chunk).cast("B") for chunk in chunks)
        first: list[memoryview] = []
        size = 0
        for piece in pieces:
            first.append(piece)
            size += len(piece)
            if size >= _ONE_REQUEST_BYTES:
                break
        with _translated(self, key):
            if size < _ONE_REQUEST_BYTES:
                obstore.put(self._store, path, first or b"", use_multipart=False)
            else:
                # An exception of the iterator aborts the parts: S3 never shows a part of the object.
                obstore.put(self._store, path, chain(first, pieces), chunk_size=part_bytes, max_concurrency=2)

    def create(self, key: str, chunks: Iterable[Chunk]) -> None:
        def check(current: bytes | None) -> None:
            if current is not None:
                raise FileExistsError(f"There is an object {self.url}/{key} already.")

        self.put_if(key, chunks, check)

    def put_if(self, key: str, chunks: Iterable[Chunk], check: Callable[[bytes | None], object]) -> None:
        content = b"".join(bytes(chunk) for chunk in chunks)
        path = self._key(key)
        pause_seconds = _FIRST_PAUSE_SECONDS
        is_sent = False
        for tries_left in reversed(range(_TRIES)):
            current, tag = self._get_tagged(key)
            if is_sent and current == content:
                return  # it got there, only the answer was lost
            check(current)
            try:
                with _translated(self, key):
                    mode: obstore.PutMode = "create" if current is None else {"e_tag": tag}
                    is_sent = True
                    obstore.put(self._store, path, content, mode=mode, use_multipart=False)
                return
            except (FileExistsError, StorageUnavailable) as err:
                # Somebody was quicker, or nobody knows whether it got there: then look again.
                if not tries_left or isinstance(err, PermissionError):
                    raise
            time.sleep(pause_seconds * _jitter.uniform(0.5, 1.0))
            pause_seconds *= 2

    def _get_tagged(self, key: str) -> tuple[bytes | None, str | None]:
        try:
            with _translated(self, key):
                found = obstore.get(self._store, self._key(key))
                return bytes(found.bytes()), found.meta["e_tag"]
        except FileNotFoundError:
            return None, None

    def put_file(self, key: str, file: IO[bytes], *, is_abandoned: Callable[[], bool] = lambda: False) -> None:
        """Store what is left to read of *file* as :meth:`put` does, in pieces of bounded size.

        Args:
            key: Where.
            file: Binary, open for reading.
            is_abandoned: Asked before each piece; once true, nothing is stored.

        Raises:
            InterruptedError: It was abandoned.
            OSError: The storage refused.
        """

        def pieces() -> Iterator[bytes]:
            while piece := file.read(_ONE_REQUEST_BYTES):
                if is_abandoned():
                    raise InterruptedError(f"The upload of {key} was abandoned.")
                yield piece
            if is_abandoned():
                raise InterruptedError(f"The upload of {key} was abandoned.")

        self.put(key, pieces())

    def get(self, key: str) -> bytes:
        with _translated(self, key):
            return bytes(obstore.get(self._store, self._key(key)).bytes())

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the object in pieces of bounded size; errors as :meth:`get`."""
        with _translated(self, key):
            for piece in obstore.get(self._store, self._key(key)).stream(min_chunk_size=_ONE_REQUEST_BYTES):
                yield bytes(piece)

    def open(self, key: str) -> BinaryIO:
        path = self._key(key)

        def fetch(start: int, end: int) -> obstore.Bytes:
            with _translated(self, key):
                return obstore.get_range(self._store, path, start=start, end=end)

        entry = self.head(key)
        if entry is None:
            raise FileNotFoundError(f"There is no object {self.url}/{key}.")
        return cast(BinaryIO, S3Reader(entry.size_bytes, fetch))

    def head(self, key: str) -> Entry | None:
        try:
            with _translated(self, key):
                return Entry(key, obstore.head(self._store, self._key(key))["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        # obstore lists whole path segments only; S3's prefixes are of characters.
        full = f"{self.prefix}/{prefix}" if self.prefix else prefix
        folder = full.rpartition("/")[0]
        skipped = len(self.prefix) + 1 if self.prefix else 0
        entries = []
        with _translated(self, prefix):
            for batch in obstore.list(self._store, folder or None):
                for meta in batch:
                    if meta["path"].startswith(full):
                        entries.append(Entry(meta["path"][skipped:], meta["size"]))
        return sorted(entries, key=lambda entry: entry.key)

    def sweep(self) -> None:
        return None  # cut uploads are not visible, and end by the bucket's own rules

    def check_access(self) -> None:
        try:
            with _translated(self, ""):
                next(iter(obstore.list(self._store, self.prefix or None, chunk_size=1)), None)
        except FileNotFoundError as err:
            raise SpecError(
                f"There is no bucket {self.bucket}, so nothing can be kept in {self.url}.",
                do="Create it, or correct its name or the endpoint.",
            ) from err
        except PermissionError as err:
            raise SpecError(
                f"S3 does not let us into {self.url}.",
                why="The credentials are wrong or have expired, or lack a permission: listing the bucket, getting, "
                "putting and deleting objects are needed.",
                do="Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, the profile or the role.",
            ) from err
        except StorageUnavailable as err:
            raise SpecError(
                f"{self.url} can't be reached:",
                why=f"{err.__cause__ and _first_line(err.__cause__)}.",
                do="Check AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL), the region and the network.",
            ) from err

    def check_bucket(self) -> None:
        """Return if the bucket is there and can be listed.

        Raises:
            FileNotFoundError: There is no such bucket.
            OSError: It can't be reached or listed.
        """
        with _translated(self, ""):
            next(iter(obstore.list(self._store, "spotproof-asks-for-the-bucket-only", chunk_size=1)), None)

    def delete(self, key: str) -> None:
        try:
            with _translated(self, key):
                obstore.delete(self._store, self._key(key))
        except FileNotFoundError:
            pass


class _Refused(PermissionError, StorageUnavailable):
    """Keys may have expired: that an object can't be seen says nothing about it."""


@contextmanager
def _translated(storage: S3Storage, key: str) -> Iterator[None]:
    """Turn obstore's errors into the builtin ones that the seam promises."""
    place = f"{storage.url}/{key}"
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        if "NoSuchBucket" in str(error):
            raise FileNotFoundError(f"There is no bucket {storage.bucket}.") from error
        raise FileNotFoundError(f"There is no object {place}.") from error
    except (AlreadyExistsError, PreconditionError) as error:
        raise FileExistsError(f"There is another object {place} now.") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise _Refused(f"S3 refused access to {place}: check the credentials and the bucket policy.") from error
    except BaseError as error:
        if "NoSuchBucket" in str(error):
            raise FileNotFoundError(f"There is no bucket {storage.bucket}.") from error
        if _REFUSALS.search(str(error)):  # listing does not tell it by its class
            raise _Refused(f"S3 refused access to {place}: check the credentials and the bucket policy.") from error
        raise StorageUnavailable(f"S3 failed at {place}: {_first_line(error)}") from error


_REFUSALS: Final = re.compile(r"\b(403 Forbidden|401 Unauthorized|ExpiredToken|InvalidAccessKeyId)\b")
_QUERY: Final = re.compile(r"\?\S*")
"""May hold a signature."""


def _first_line(error: BaseException) -> str:
    """obstore's messages go on with debug dumps; the first line says it."""
    return _QUERY.sub("", str(error).strip().partition("\n")[0])[:300]
