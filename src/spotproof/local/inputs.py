"""The channels of a job: which objects each host gets of them, and how they get there.

Source: the API model, S3DataSource and Channel. What it leaves open is in docs/fidelity.md.
"""

import json
import posixpath
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from spotproof.errors import SpecError
from spotproof.local.downloads import fetch_objects, list_objects
from spotproof.local.request import Channel
from spotproof.storage import checked_key
from spotproof.storage._s3 import S3Storage, split_s3_url

__all__ = ["InputError", "fill_channel", "find_objects", "parse_manifest", "take_share"]

_MAX_MANIFEST_BYTES = 100 * 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS


class InputError(FileNotFoundError):
    """What a channel names is not there, or is not what the channel says."""


def find_objects(channel: Channel, open_bucket: Callable[[str], S3Storage]) -> tuple[S3Storage, dict[str, str]]:
    """Return the bucket and all objects of a channel: key by file name.

    Raises:
        InputError: The manifest is none.
        FileNotFoundError: The bucket or the manifest does not exist.
        OSError: S3 failed.
    """
    bucket, prefix = split_s3_url(channel.s3_url)
    storage = open_bucket(bucket)
    if channel.data_type == "ManifestFile":
        entry = storage.head(prefix)
        if entry is None:
            raise InputError(f"The manifest {channel.s3_url} does not exist.")
        if entry.size_bytes > _MAX_MANIFEST_BYTES:
            raise InputError(f"The manifest {channel.s3_url} is larger than {_MAX_MANIFEST_BYTES} bytes.")
        bucket, keys = parse_manifest(storage.get(prefix), channel.s3_url)
        return open_bucket(bucket), keys
    keys = list_objects(storage, prefix)
    if not keys and not prefix.endswith("/") and prefix and storage.head(prefix) is not None:
        return storage, {posixpath.basename(prefix): prefix}  # the URL of one object
    return storage, keys


def parse_manifest(content: bytes, url: str) -> tuple[str, dict[str, str]]:
    """Return bucket and objects, key by file name, of ``[{"prefix": "s3://bucket/some/"}, "name", …]``. Pure.

    Raises:
        InputError: It has another form.
    """
    form = f'The manifest {url} must be a JSON list: [{{"prefix": "s3://bucket/some/prefix/"}}, "name", "other/name"]; '
    try:
        head, *names = json.loads(content)
        bucket, prefix = split_s3_url(head["prefix"])
    except (ValueError, TypeError, KeyError, RecursionError, SpecError) as error:
        raise InputError(f"{form}it can't be read so ({type(error).__name__}: {error}).") from error
    keys = {}
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{form}{name!r} is no name.")
        try:
            keys[checked_key(name.lstrip("/"))] = prefix + name
        except ValueError as error:
            raise InputError(f"{form}{name!r} can't be a file's name ({error}).") from error
    return bucket, keys


def take_share(keys: Mapping[str, str], host: int, num_hosts: int) -> dict[str, str]:
    """Return what one host gets of a channel that is ShardedByS3Key: every *num_hosts*-th object by its key. Pure."""
    ordered = sorted(keys.items(), key=lambda item: item[1])
    return dict(ordered[host::num_hosts])


def fill_channel(
    channel: Channel,
    folder: Path,
    open_bucket: Callable[[str], S3Storage],
    *,
    host: int,
    num_hosts: int,
    is_abandoned: Callable[[], bool],
) -> None:
    """Write a host's part of *channel* below *folder*.

    Raises:
        InputError: An object of a manifest does not exist, or the data is not compressed as the channel says.
        InterruptedError: Abandoned meanwhile.
        OSError: S3 or the disk failed.
    """
    storage, keys = find_objects(channel, open_bucket)
    if channel.is_sharded:
        keys = take_share(keys, host, num_hosts)
    if channel.is_compressed:
        keys = {name.removesuffix(".gz"): key for name, key in keys.items()}
    convert = _gunzip if channel.is_compressed else iter
    try:
        written = fetch_objects(storage, keys, folder, is_abandoned=is_abandoned, convert=convert)
    except zlib.error as error:
        raise InputError(
            f"Channel {channel.name!r} has CompressionType Gzip, but {channel.s3_url}: {error}."
        ) from error
    if channel.data_type == "ManifestFile" and len(written) < len(keys):
        missing = min(keys[name] for name in keys.keys() - set(written))
        raise InputError(f"The manifest {channel.s3_url} names {missing}, which {storage.url} does not have.")


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of gzip members that follow each other, as of one file."""
    member, is_whole = zlib.decompressobj(_GZIP), False
    for piece in pieces:
        while piece:
            yield member.decompress(piece)
            piece, is_whole = member.unused_data, member.eof
            if is_whole:
                member = zlib.decompressobj(_GZIP)
    if not is_whole:
        raise zlib.error("it ends too early")
