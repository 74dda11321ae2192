"""Remove old checkpoints by hand: what goes, what stays, and when nothing may be touched. Loads no torch."""

from dataclasses import dataclass
from datetime import datetime

from spotproof.checkpoint.choose import committed_steps, no_checkpoint, read_manifest, verify
from spotproof.checkpoint.journal import read_events, recorded_attempts
from spotproof.checkpoint.manifest import Manifest, StoredFile, manifest_key
from spotproof.errors import CheckpointConflict, CheckpointDamaged, SpecError
from spotproof.events import AttemptEnded
from spotproof.storage import Entry, Storage

__all__ = ["QUIET_SECONDS", "PrunePlan", "plan_prune", "prune", "refuse_if_running"]

QUIET_SECONDS = 30 * 60
"""An attempt that did not end and whose last event is younger than this may be running. Saves come every 15 minutes
at the latest in auto mode, and an object store gets an attempt's events with its saves only."""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune removes, in this order: no manifest may name what is gone."""

    kept_steps: tuple[int, ...]
    """Newest first; each of them verifies."""
    removed_steps: tuple[int, ...]
    damaged_steps: tuple[int, ...]
    """Of the removed ones, those that did not verify."""
    removed: tuple[Entry, ...]
    """Manifests first, then the packs and states that no kept checkpoint names."""

    @property
    def freed_bytes(self) -> int:
        """Return the size of all that goes."""
        return sum(entry.size_bytes for entry in self.removed)


def plan_prune(storage: Storage, *, keep: int) -> PrunePlan:
    """Return what can go so that the newest *keep* checkpoints that verify stay. Removes nothing.

    Raises:
        SpecError: *keep* is below 1.
        CheckpointNotFound: There is no checkpoint.
        CheckpointDamaged: None verifies, so none is removed: something of them may yet be saved.
        ResumeMismatch: One is of a format that this version can't read, so what it needs is unknown.
        OSError: A file could not be read, which is no reason to remove it.
    """
    if keep < 1:
        raise SpecError(f"keep={keep} would remove everything.", do="Keep 1 or more; delete the folder to remove all.")
    steps = committed_steps(storage)
    if not steps:
        raise no_checkpoint(storage)
    kept: dict[int, Manifest] = {}
    damaged: list[int] = []
    known: dict[StoredFile, CheckpointDamaged | None] = {}
    for step in steps:
        try:
            manifest = read_manifest(storage, manifest_key(step))
            if len(kept) < keep:
                verify(storage, manifest, known)
                kept[step] = manifest
        except CheckpointDamaged as err:
            cause = err.__cause__
            if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                raise cause from err
            damaged.append(step)
    if not kept:
        raise CheckpointDamaged(
            f"None of the {len(steps)} checkpoints in {storage.url} verifies, so none was removed.",
            do="`spotproof checkpoints verify` says what is wrong with each.",
        )
    removed_steps = tuple(step for step in steps if step not in kept)
    manifests = [entry for step in removed_steps if (entry := storage.head(manifest_key(step))) is not None]
    named = {file.key for manifest in kept.values() for file in manifest.files}
    packs = [entry for entry in storage.list("packs/") if entry.key not in named]
    return PrunePlan(tuple(kept), removed_steps, tuple(damaged), (*manifests, *packs))


def prune(storage: Storage, plan: PrunePlan) -> None:
    """Remove what *plan* says. Killed anywhere, the kept checkpoints are whole and a second prune goes on.

    Raises:
        OSError: The storage refused.
    """
    for entry in plan.removed:
        storage.delete(entry.key)


def refuse_if_running(storage: Storage, now: datetime) -> None:
    """Return if no attempt can be writing here, as far as its events tell.

    Raises:
        CheckpointConflict: The newest attempt has not ended and was heard of lately.
    """
    for attempt in recorded_attempts(storage)[-1:]:
        events = read_events(storage, attempt)
        if not events or isinstance(events[-1], AttemptEnded):
            return
        silent_seconds = (now - events[-1].at).total_seconds()
        if silent_seconds < QUIET_SECONDS:
            raise CheckpointConflict(
                f"Attempt {attempt} may be running: its last event in {storage.url} is {silent_seconds:.0f} s old.",
                why="It writes packs before the manifest that names them, and a prune would take them for leftovers.",
                do="Wait until it has ended. If it was killed, or its machine is gone, use --force.",
            )
