"""From ``PLACE`` and ``PLACE@STEP`` to a storage and a verified checkpoint."""

import os
from typing import TYPE_CHECKING

from spotproof.errors import CheckpointNotFound

if TYPE_CHECKING:
    from spotproof.checkpoint.manifest import Manifest
    from spotproof.storage import Storage

__all__ = ["open_place", "parse_place", "read_checkpoint"]


def open_place(place: str, is_aws: bool) -> "Storage":
    """Return the storage of a directory or an S3 prefix: at the local server if one runs, unless AWS is asked for.

    Raises:
        SpecError: It can't be reached; says why, and what to do.
    """
    from spotproof.cli.locate import open_service, use_local_server
    from spotproof.storage import open_storage

    if place.startswith("s3://"):
        if is_aws:
            open_service(is_aws=True)  # finds the credentials of an AWS profile
        else:
            use_local_server()
    storage = open_storage(place)
    storage.check_access()
    return storage


def parse_place(text: str) -> tuple[str, int | None]:
    """Return place and step of ``PLACE@STEP``; without a step, or if there is a directory of that very name, None."""
    place, at, step = text.rpartition("@")
    if at and place and step.isascii() and step.isdigit() and not os.path.isdir(text):
        return place, int(step)
    return text, None


def read_checkpoint(storage: "Storage", step: int | None) -> "Manifest":
    """Return the checkpoint of *step*, verified; without a step, the newest one that verifies.

    Raises:
        CheckpointNotFound: There is none.
        CheckpointDamaged: The one asked for does not verify, or none does.
    """
    from spotproof.checkpoint.choose import committed_steps, newest_verified, no_checkpoint, read_manifest, verify
    from spotproof.checkpoint.manifest import manifest_key
    from spotproof.cli.console import print_line
    from spotproof.errors import CheckpointDamaged

    steps = committed_steps(storage)
    if not steps:
        raise no_checkpoint(storage)
    if step is None:
        newest = newest_verified(
            storage,
            lambda step, error: print_line(f"Step {step} is passed over: {error}", stderr=True, style="yellow"),
        )
        if newest is None:
            raise CheckpointDamaged(
                f"None of the {len(steps)} checkpoints in {storage.url} verifies.",
                do="`spotproof checkpoints verify` says what is wrong with each.",
            )
        return newest
    if step not in steps:
        known = ", ".join(map(str, steps[:5])) + (", …" if len(steps) > 5 else "")
        raise CheckpointNotFound(
            f"There is no checkpoint of step {step} in {storage.url}.", why=f"There are those of {known}."
        )
    manifest = read_manifest(storage, manifest_key(step))
    verify(storage, manifest)
    return manifest
