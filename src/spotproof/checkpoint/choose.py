"""Which checkpoint to use: by manifest step and verified hashes, never by time or name alone. Loads no torch.

The platform may deliver files late, torn, in any order, or not at all. A checkpoint that does not verify is reported
and the next older one is tried, in the same start. A storage that does not answer is no damage: that is raised, because
to go on from an older checkpoint, or from none, would be to lose the newer one.
"""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from spotproof.checkpoint.manifest import (
    MANIFEST_REGEX,
    Manifest,
    StoredFile,
    content_hash,
    manifest_key,
    parse_manifest,
)
from spotproof.checkpoint.pack import read_pack, telling_damage
from spotproof.errors import CheckpointDamaged, CheckpointNotFound, CheckpointUnreadable
from spotproof.storage import Storage

__all__ = [
    "check_listed",
    "check_size",
    "check_sizes",
    "committed_steps",
    "newest",
    "newest_verified",
    "no_checkpoint",
    "read_file",
    "read_manifest",
    "verify",
]

_MAX_MANIFEST_BYTES = 2**28
"""Some two million tensors. What is larger is no manifest, and reading it might take all memory."""

T = TypeVar("T")

OnRejected = Callable[[int, CheckpointDamaged], None]


def committed_steps(storage: Storage) -> list[int]:
    """Return the steps that have a manifest, newest first. Says nothing about whether they verify."""
    found = (MANIFEST_REGEX.fullmatch(entry.key) for entry in storage.list("step-"))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def no_checkpoint(storage: Storage) -> CheckpointNotFound:
    """Return the error for a *storage* without manifests: what there is in the place of a folder of checkpoints."""
    place = storage.url
    if "://" not in place and os.path.isfile(place):
        return CheckpointNotFound(
            f"{place} is a file.",
            why="Spotproof's checkpoints are a folder or an S3 prefix.",
            do="Name the folder. From a .ckpt of Lightning, `spotproof checkpoints import FILE FOLDER` makes one.",
        )
    if "://" not in place and not os.path.isdir(place):
        return CheckpointNotFound(f"There is no folder {place}.", do="Check the path.")
    return CheckpointNotFound(
        f"There is no checkpoint in {place}.",
        why="None of its files is a manifest, step-*.json.",
        do="Check the place: what the training writes to, not the folder above it.",
    )


def read_manifest(storage: Storage, key: str) -> Manifest:
    """Return the manifest stored under *key*.

    Raises:
        CheckpointDamaged: It cannot be read or is not whole.
        StorageUnavailable: The storage did not answer.
    """
    with telling_damage(storage, key):
        entry = storage.head(key)
        if entry is not None and entry.size_bytes > _MAX_MANIFEST_BYTES:
            raise CheckpointDamaged(f"{key} in {storage.url} has {entry.size_bytes} bytes.", why="No manifest has.")
        data = storage.get(key)
    return parse_manifest(data, key)


def read_file(storage: Storage, file: StoredFile) -> bytes:
    """Return the verified content of *file*, which is named by the hash of its content.

    Raises:
        CheckpointDamaged: It is missing, cut short or altered.
    """
    check_size(storage, file)  # before it is taken into memory
    with telling_damage(storage, file.key):
        data = storage.get(file.key)
    if len(data) != file.size_bytes:
        raise CheckpointDamaged(
            f"{file.key} in {storage.url} has {len(data)} bytes of {file.size_bytes}.", why="It was cut short."
        )
    if content_hash(data) != file.hash:
        raise CheckpointDamaged(f"{file.key} in {storage.url} does not match its hash.", why="Its bytes were altered.")
    return data


def check_sizes(storage: Storage, manifest: Manifest) -> None:
    """Check that every file is there in its size, which finds most damage without reading any.

    Raises:
        CheckpointDamaged: One is missing, cut short or too long.
    """
    for file in manifest.files:
        check_size(storage, file)


def check_size(storage: Storage, file: StoredFile) -> None:
    """Check that *file* is there in its size.

    Raises:
        CheckpointDamaged: It is missing, cut short or too long.
    """
    with telling_damage(storage, file.key):
        entry = storage.head(file.key)
    _check_stored(storage.url, file, None if entry is None else entry.size_bytes)


def check_listed(manifest: Manifest, sizes: Mapping[str, int], url: str) -> None:
    """Check the same by a listing, for whoever pays for each question: *sizes* in bytes by key, of what is in *url*.

    Raises:
        CheckpointDamaged: A file is missing, cut short or too long.
    """
    for file in manifest.files:
        _check_stored(url, file, sizes.get(file.key))


def _check_stored(url: str, file: StoredFile, size_bytes: int | None) -> None:
    if size_bytes is None:
        raise CheckpointDamaged(f"{file.key} is missing in {url}.")
    if size_bytes != file.size_bytes:
        why = "It was cut short." if size_bytes < file.size_bytes else "Something was added to it."
        raise CheckpointDamaged(f"{file.key} in {url} has {size_bytes} bytes of {file.size_bytes}.", why=why)


def verify(
    storage: Storage, manifest: Manifest, known: dict[StoredFile, CheckpointDamaged | None] | None = None
) -> None:
    """Check every file of the checkpoint against its size and hash.

    Args:
        storage: Where it lies.
        manifest: The checkpoint.
        known: What was found out about files before, for checkpoints that share packs; is added to.

    Raises:
        CheckpointDamaged: One is missing, cut short or altered.
    """
    check_sizes(storage, manifest)
    known = {} if known is None else known
    for rank in manifest.ranks:
        for file in (rank.state, *rank.packs):
            if file not in known:
                try:
                    known[file] = None
                    if file is rank.state:
                        read_file(storage, file)
                    else:
                        read_pack(storage, file)
                except CheckpointDamaged as err:
                    known[file] = err
            found = known[file]
            if found is not None:
                raise found


def newest_verified(storage: Storage, on_rejected: OnRejected | None = None) -> Manifest | None:
    """Return the newest checkpoint that verifies, or None if there is none.

    Args:
        storage: Where the checkpoints lie.
        on_rejected: Called with the step and the reason for each newer one that does not verify.

    Raises:
        CheckpointUnreadable: There is none, but one that the storage did not give might be it.
        ResumeMismatch: There is one of a format that this version can't read.
    """
    found = newest(storage, lambda manifest: verify(storage, manifest), on_rejected)
    return found[0] if found is not None else None


def newest(
    storage: Storage, check: Callable[[Manifest], T], on_rejected: OnRejected | None = None
) -> tuple[Manifest, T] | None:
    """Return the newest checkpoint for which *check* does not raise CheckpointDamaged, and what it returned.

    Raises:
        CheckpointUnreadable: There is none, but one that the storage did not give might be it.
        ResumeMismatch: There is one of a format that this version can't read.
    """
    unreadable: CheckpointUnreadable | None = None
    for step in committed_steps(storage):
        try:
            manifest = read_manifest(storage, manifest_key(step))
            return manifest, check(manifest)
        except CheckpointDamaged as err:
            if on_rejected is not None:
                on_rejected(step, err)
            if isinstance(err, CheckpointUnreadable):
                unreadable = unreadable or err
    if unreadable is not None:  # to begin anew would be to give up, and then to replace, what may be whole
        raise CheckpointUnreadable(
            f"No checkpoint in {storage.url} can be read.",
            why=f"{unreadable.what} {unreadable.why}",
            do="Start again once the storage answers, or use an empty place to begin anew.",
        ) from unreadable
    return None
