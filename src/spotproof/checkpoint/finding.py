"""Which checkpoint a process goes on from: its own newest whole one, or the newest that all ranks have whole."""

import logging
import os
from functools import partial

from spotproof.checkpoint.choose import check_sizes, committed_steps, newest, read_manifest, verify
from spotproof.checkpoint.manifest import Manifest, StoredFile, content_hash, format_manifest, manifest_key
from spotproof.checkpoint.ranks import Ranks, guess_rank
from spotproof.checkpoint.restore import ReadState, read_state
from spotproof.errors import CheckpointDamaged, CheckpointUnreadable, ResumeMismatch
from spotproof.storage import Storage

__all__ = ["Finder", "refuse_other_world"]

log = logging.getLogger(__name__)


def refuse_other_world(manifest: Manifest, world_size: int) -> None:
    """Return if *manifest* was written by *world_size* processes.

    Raises:
        ResumeMismatch: It was not.
    """
    if len(manifest.ranks) != world_size:
        raise ResumeMismatch(
            f"Checkpoint {manifest.key} was written by a training of {_processes(len(manifest.ranks))}; this one has "
            f"{_processes(world_size)}.",
            why="Each has its own share of the data and its own random numbers, so no other number continues exactly.",
            do=f"Resume with {_processes(len(manifest.ranks))}; or begin another training in an empty folder, from the "
            "weights that `spotproof checkpoints export` writes.",
        )


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


class Finder:
    """Looks for checkpoints in one place, and keeps what it read of the one it found."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._ahead: tuple[Manifest, int, ReadState] | None = None
        self.rejected: dict[int, str] = {}
        """Steps whose checkpoints were passed over, and why."""
        self.was_empty = False
        """Whether the last look found none that is whole."""

    def latest(self) -> Manifest | None:
        """Return the newest checkpoint that is whole here, or None. For one process alone: nobody else is asked.

        Raises:
            CheckpointUnreadable: The storage gives none, but holds one that may be whole, or does not answer.
            ResumeMismatch: There is one that this version, or this machine, can't read.
        """
        self.forget()
        try:
            found = newest(self._storage, self._verified, self._reject_as_damaged)
        except OSError as err:
            raise self._unreadable(err) from err
        self.was_empty = found is None
        return found[0] if found is not None else None

    def agreed(self, ranks: Ranks) -> Manifest | None:
        """Return the newest checkpoint that is whole for every rank, or None; the same on all. Collective.

        What is whole on one host may be cut short on another, or missing: each has what its platform brought there.

        Raises:
            CheckpointUnreadable: There is none, but one that a storage did not give might be it.
            ResumeMismatch: The newest that all have is of another number of processes, or can't be read by one of them.
        """
        found = ranks.loop.together(self._committed)
        digests = [look["digests"] for look in found]
        steps = {int(step) for look in found for kind in look.values() for step in kind}
        chosen: Manifest | None = None
        unreadable = [reason for look in found for reason in look["unreadable"].values()]
        for step in sorted(steps, reverse=True):
            reason = self._missing(str(step), digests, found)
            if reason is None:
                outcomes = ranks.loop.together(partial(self._try, step, ranks))
                if not any(said for said, _ in outcomes):
                    assert self._ahead is not None
                    chosen = self._ahead[0]
                    break
                rank = next(rank for rank, (said, _) in enumerate(outcomes) if said)
                reason = f"On rank {rank}: {outcomes[rank][0]}"
                unreadable += [said for said, is_unreadable in outcomes if is_unreadable]
            self._reject(step, reason, is_told=ranks.is_lead)
        if chosen is None and unreadable:
            raise CheckpointUnreadable(
                "No checkpoint can be read by all processes of this training.",
                why=unreadable[0],
                do="Start again once the storage answers, or use an empty place to begin anew.",
            )
        self.was_empty = chosen is None
        return chosen

    def read(self, manifest: Manifest, *, rank: int, world_size: int) -> ReadState:
        """Return the state of *rank*.

        Raises:
            CheckpointDamaged: A file does not verify.
            ResumeMismatch: The checkpoint was written by another number of processes.
        """
        refuse_other_world(manifest, world_size)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:2] == (manifest, rank):
            return ahead[2]
        return read_state(self._storage, manifest, rank=rank)

    def forget(self) -> None:
        """Let go of what was read ahead."""
        self._ahead = None

    def _verified(self, manifest: Manifest) -> None:
        """Read what this process will need, as far as that can be told now, and verify the rest."""
        rank = guess_rank(os.environ) if len(manifest.ranks) > 1 else 0
        rank = min(rank, len(manifest.ranks) - 1)
        state = read_state(self._storage, manifest, rank=rank)
        own = manifest.ranks[rank]
        known: dict[StoredFile, CheckpointDamaged | None] = dict.fromkeys((own.state, *own.packs))
        if len(manifest.ranks) > 1:
            verify(self._storage, manifest, known)
        self._ahead = manifest, rank, state

    def _committed(self) -> dict[str, dict[str, str]]:
        """Return the manifests that are whole here, by step and content, and why others are not."""
        look: dict[str, dict[str, str]] = {"digests": {}, "damaged": {}, "unreadable": {}}
        try:
            steps = committed_steps(self._storage)
        except OSError as err:
            raise self._unreadable(err) from err
        for step in steps:
            try:
                manifest = read_manifest(self._storage, manifest_key(step))
                check_sizes(self._storage, manifest)
                look["digests"][str(step)] = content_hash(format_manifest(manifest))
            except OSError as err:
                raise self._unreadable(err) from err
            except CheckpointDamaged as err:
                look["unreadable" if isinstance(err, CheckpointUnreadable) else "damaged"][str(step)] = str(err)
        return look

    def _missing(self, step: str, digests: list[dict[str, str]], found: list[dict[str, dict[str, str]]]) -> str | None:
        """Return why not every rank has the checkpoint of *step*, or None if all seem to have the same."""
        for rank, look in enumerate(found):
            if step not in digests[rank]:
                why = look["damaged"].get(step) or look["unreadable"].get(step) or "It is not there."
                return f"On rank {rank}: {why}"
        return None if len({of_rank[step] for of_rank in digests}) == 1 else "The ranks have different ones."

    def _try(self, step: int, ranks: Ranks) -> tuple[str, bool]:
        """Read this rank's state ahead; return why that can't be done, or nothing, and whether it may be whole."""
        try:
            manifest = read_manifest(self._storage, manifest_key(step))
            refuse_other_world(manifest, ranks.world_size)
            if self._ahead is None or self._ahead[:2] != (manifest, ranks.rank):
                self.forget()
                self._ahead = manifest, ranks.rank, read_state(self._storage, manifest, rank=ranks.rank)
        except OSError as err:
            raise self._unreadable(err) from err
        except CheckpointDamaged as err:
            return str(err), isinstance(err, CheckpointUnreadable)
        return "", False

    def _unreadable(self, err: OSError) -> CheckpointUnreadable:
        return CheckpointUnreadable(
            f"{self._storage.url} does not tell what it holds.",
            why=f"{err}.",
            do="Start again once it can be read; to begin anew beside checkpoints would replace them.",
        )

    def _reject_as_damaged(self, step: int, err: CheckpointDamaged) -> None:
        self._reject(step, str(err), is_told=True)

    def _reject(self, step: int, reason: str, *, is_told: bool) -> None:
        if is_told and self.rejected.get(step) != reason:
            log.warning("Checkpoint of step %d is passed over for the next older one: %s", step, reason)
        self.rejected[step] = reason
