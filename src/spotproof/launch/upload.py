"""Files to S3: what is there already is not sent again.

Each object is written whole or not at all. An upload that was cut goes on where it was when it is made again: what is
there with the same size and checksum is left. The checksum is the SHA-256 that an upload leaves with the object;
without one (another program has written it) the object's ETag is compared, where that is an MD5.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from spotproof.errors import SpecError
from spotproof.launch.local_files import LocalFile, LocalFiles
from spotproof.spec import as_folder, split_s3_uri

__all__ = ["Uploaded", "upload_files"]

_SHA256 = "spotproof-sha256"
"""Name of the object's metadata."""
_NUM_THREADS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploaded:
    """What an upload did."""

    s3_uri: str
    num_uploaded: int
    num_present: int
    """Files that were there already."""
    uploaded_bytes: int
    present_bytes: int
    others: tuple[str, ...]
    """Names of objects there that are none of the files: part of the data for whoever reads the prefix."""


def upload_files(
    client: Any, files: LocalFiles, s3_uri: str, *, on_bytes: Callable[[int], None] = lambda _: None
) -> Uploaded:
    """Copy *files* below *s3_uri*, several at a time.

    Args:
        client: boto3's for S3.
        files: What is to be there.
        s3_uri: A prefix.
        on_bytes: Called with the number of bytes that were sent, or found there, since the last call, from threads.

    Raises:
        SpecError: A file changes while it is uploaded.
        botocore.exceptions.ClientError: S3 refused.
    """
    from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager

    bucket, prefix = split_s3_uri(as_folder(s3_uri))
    present = _list_sizes(client, bucket, prefix)

    def is_missing(file: LocalFile) -> bool:
        is_there = present.get(file.name) == file.size_bytes and _is_same(client, bucket, prefix + file.name, file)
        if is_there:
            on_bytes(file.size_bytes)
        return not is_there

    with ThreadPoolExecutor(max_workers=_NUM_THREADS) as pool:
        missing = [file for file, is_so in zip(files.files, pool.map(is_missing, files.files), strict=True) if is_so]
    # One manager for all: its threads are busy with the parts of a few large files as with many small ones.
    with create_transfer_manager(client, TransferConfig(max_concurrency=_NUM_THREADS)) as manager:
        sent = [
            manager.upload(
                str(file.path),
                bucket,
                prefix + file.name,
                extra_args={"Metadata": {_SHA256: file.sha256}},
                subscribers=[ProgressCallbackInvoker(on_bytes)],
            )
            for file in missing
        ]
        for file, future in zip(missing, sent, strict=True):
            future.result()
            if not file.is_unchanged():
                client.delete_object(Bucket=bucket, Key=prefix + file.name)  # it would pass for what was read before
                raise SpecError(
                    f"{file.path} changed while it was uploaded.",
                    why="Nobody knows which of its states is there.",
                    do="Upload again once nothing writes to it.",
                )
    sent_bytes = sum(file.size_bytes for file in missing)
    return Uploaded(
        s3_uri=f"s3://{bucket}/{prefix}",
        num_uploaded=len(missing),
        num_present=len(files.files) - len(missing),
        uploaded_bytes=sent_bytes,
        present_bytes=files.size_bytes - sent_bytes,
        others=tuple(sorted(present.keys() - {file.name for file in files.files})),
    )


def _list_sizes(client: Any, bucket: str, prefix: str) -> dict[str, int]:
    """Return the objects below *prefix*: size by name."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            name = entry["Key"].removeprefix(prefix)
            if name:  # the folder that S3's console makes
                found[name] = int(entry["Size"])
    return found


def _is_same(client: Any, bucket: str, key: str, file: LocalFile) -> bool:
    found = client.head_object(Bucket=bucket, Key=key)
    if _SHA256 in found.get("Metadata", {}):
        return bool(found["Metadata"][_SHA256] == file.sha256)
    etag = str(found.get("ETag", "")).strip('"')
    if len(etag) != 32 or found.get("ServerSideEncryption") == "aws:kms":  # of parts, or of what is encrypted
        return False
    digest = hashlib.md5(usedforsecurity=False)
    with file.path.open("rb") as content:
        while chunk := content.read(2**20):
            digest.update(chunk)
    return digest.hexdigest() == etag
