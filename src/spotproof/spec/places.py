"""Places in S3. Pure."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from spotproof.errors import SpecError

__all__ = ["S3Uri", "as_folder", "split_s3_uri"]

_SCHEME = re.compile(r"^[a-z0-9]+://", re.IGNORECASE)
_HOST = re.compile(r"\.s3[.-][a-z0-9.-]*amazonaws\.com(\.cn)?$")
"""Of the address that a browser has of the bucket."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key prefix of ``s3://bucket/prefix``.

    Raises:
        SpecError: It is no such URI.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        raise SpecError(
            f"{uri!r} is no S3 place.",
            why="The form is s3://bucket/prefix; a bucket has 3 to 63 lower-case letters, digits, dots and hyphens.",
            do=f"Write for example {_as_place(uri)}.",
        )
    if len(uri) > 1024:
        raise SpecError(f"The S3 URI is {len(uri)} characters long.", why="The service takes 1024.", do="Shorten it.")
    if not uri.isprintable():
        raise SpecError(f"{uri!r} is no S3 place.", why="It has unprintable characters.", do="Remove them.")
    return bucket, prefix


def _as_place(text: str) -> str:
    """Return what may have been meant."""
    bucket, _, prefix = _SCHEME.sub("", text).partition("/")
    guess = re.sub(r"[^a-z0-9.-]+", "-", _HOST.sub("", bucket.lower())).strip("-.")
    return f"s3://{guess if _BUCKET.fullmatch(guess) else 'my-bucket'}/{prefix.lstrip('/') or 'some/prefix'}"


def as_folder(uri: str) -> str:
    """Return *uri* with a slash at its end: as a raw prefix ``run-1`` would also name ``run-10``."""
    return uri.rstrip("/") + "/"


def _check(uri: str) -> str:
    split_s3_uri(uri)
    return uri


S3Uri = Annotated[str, AfterValidator(_check), Field(json_schema_extra={"pattern": f"^s3://{_BUCKET.pattern}(/|$)"})]
"""``s3://bucket/prefix``."""
