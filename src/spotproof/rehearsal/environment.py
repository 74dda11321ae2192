"""The AWS settings of this process, for a time."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["only_aws_settings"]

_KEPT = ("AWS_REGION", "AWS_DEFAULT_REGION")


@contextmanager
def only_aws_settings(values: Mapping[str, str]) -> Iterator[None]:
    """Set *values*, which boto3 and the storage read, and put all other ``AWS_*`` but the region aside; then restore.

    A profile or a session token of the caller's own would otherwise be mixed with the local platform's keys, which S3
    refuses.
    """
    before = _aws_settings()
    for name in before:
        if name not in _KEPT:
            del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in _aws_settings():
            del os.environ[name]
        os.environ.update(before)


def _aws_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
