"""A prefix of an S3 bucket as a storage, over obstore."""

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from itertools import chain
from typing import IO, TYPE_CHECKING, BinaryIO, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from spotproof.errors import SpecError
from spotproof.storage._base import Chunk, Entry, checked_key

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

__all__ = ["S3Storage", "split_s3_url"]

_PART_BYTES: Final = 16 * 1024 * 1024
_TIMEOUT: Final = timedelta(seconds=120)
_ONE_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Up to here an object goes up in one PUT; above, in parts that S3 shows only when all are there."""


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

    def __init__(self, bucket: str, prefix: str = "", *, environment: Mapping[str, str]) -> None:
        split_s3_url(f"s3://{bucket}/{prefix}")  # obstore panics at what can't be part of a URL
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._store = _open_store(bucket, environment)

    @classmethod
    def from_environment(cls, url: str) -> "S3Storage":
        """Return the storage at ``s3://bucket/prefix``, with credentials, region and endpoint from ``AWS_*``.

        ``AWS_ENDPOINT_URL_S3`` beats ``AWS_ENDPOINT_URL``, as in boto3. Without keys in the environment, obstore asks
        the container's or the instance's own credentials service.
        """
        bucket, prefix = split_s3_url(url)
        return cls(bucket, prefix, environment=os.environ)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def _key(self, key: str) -> str:
        checked_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    def put(self, key: str, chunks: Iterable[Chunk]) -> None:
        path = self._key(key)
        pieces = iter(chunks)
        first = bytearray()
        for piece in pieces:
            first += memoryview(piece).cast("B")
            if len(first) >= _ONE_REQUEST_BYTES:
                break
        with _translated(self, key):
            if len(first) < _ONE_REQUEST_BYTES:
                obstore.put(self._store, path, bytes(first), use_multipart=False)
            else:
                # An exception of the iterator aborts the parts: S3 never shows a part of the object.
                obstore.put(self._store, path, chain([bytes(first)], pieces), chunk_size=_PART_BYTES, max_concurrency=2)

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
        return io.BytesIO(self.get(key))

    def head(self, key: str) -> Entry | None:
        try:
            with _translated(self, key):
                return Entry(key, obstore.head(self._store, self._key(key))["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> list[Entry]:
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


def _open_store(bucket: str, environment: Mapping[str, str]) -> S3Store:
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    # Whatever is not given here, obstore takes from the process's environment, and that may be another's: a job's
    # storage must not get the endpoint or the session token of the user's own AWS account.
    config: S3Config = {"region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"}
    client: ClientConfig = {"timeout": _TIMEOUT, "connect_timeout": timedelta(seconds=5)}
    if endpoint:
        config["endpoint"] = config["aws_endpoint_url_s3"] = endpoint
        config["virtual_hosted_style_request"] = False
        if endpoint.startswith("http://"):
            if not (_is_loopback(endpoint) or environment.get("AWS_ALLOW_HTTP", "").lower() == "true"):
                raise SpecError(
                    f"The S3 endpoint {endpoint} is plain http:",
                    why="credentials and data would cross the network in the clear.",
                    do="Use https, or set AWS_ALLOW_HTTP=true if you mean it.",
                )
            client["allow_http"] = True
    retry: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
    return S3Store(
        bucket,
        config=config,
        client_options=client,
        retry_config=retry,
        credential_provider=_static_credentials(environment),
    )


def _static_credentials(environment: Mapping[str, str]) -> "Callable[[], S3Credential] | None":
    """Return what gives the environment's keys; None if it has none, so that obstore looks for a service that does."""
    if "AWS_ACCESS_KEY_ID" not in environment or "AWS_SECRET_ACCESS_KEY" not in environment:
        return None
    credentials: S3Credential = {
        "access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        "token": environment.get("AWS_SESSION_TOKEN") or None,
        "expires_at": None,
    }
    return lambda: credentials


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(f"S3 refused access to {place}: check the credentials and the bucket policy.") from error
    except BaseError as error:
        if "NoSuchBucket" in str(error):
            raise FileNotFoundError(f"There is no bucket {storage.bucket}.") from error
        raise OSError(f"S3 failed at {place}: {_first_line(error)}") from error


def _first_line(error: BaseError) -> str:
    """obstore's messages go on with debug dumps; the first line says it. Query strings may hold a signature."""
    return str(error).strip().partition("\n")[0].partition("?")[0][:300]
