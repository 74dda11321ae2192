"""What a save does in the storage: packs and state, then the manifest, then the removal of what is old."""

from dataclasses import dataclass
from typing import Protocol

from spotproof.checkpoint.fence import Fence
from spotproof.checkpoint.journal import Journal
from spotproof.checkpoint.manifest import Manifest, RankFiles, StoredFile, content_hash, format_manifest, state_key
from spotproof.checkpoint.packing import PackStore
from spotproof.checkpoint.retention import Retention
from spotproof.checkpoint.stage import StagedState
from spotproof.checkpoint.unchanging import Unchanging
from spotproof.errors import CheckpointConflict
from spotproof.events import CheckpointDropped
from spotproof.storage import Storage

__all__ = ["Committed", "Committer", "Found", "SoleCommitter", "write_state"]


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the checkpoints that there were."""

    removed: list[int]
    """Steps that somebody else has removed."""
    newest: int | None
    """The newest step that is left."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A checkpoint that is durable."""

    total_bytes: int
    written_bytes: int


class Committer(Protocol):
    """Owns everything in the storage; for the writer's thread. Each method may raise what a storage raises."""

    def begin(self) -> Found:
        """Make sure that this attempt may write, and look what is there.

        Raises:
            CheckpointConflict: A newer attempt has taken its place.
        """
        ...

    def commit(self, step: int, staged: StagedState, meta: dict[str, object]) -> Committed:
        """Make *staged* durable, the manifest last.

        Raises:
            CheckpointConflict: A newer attempt has taken this one's place.
            TensorChanged: A tensor that was not copied, because it was taken to be unchanging, has changed.
        """
        ...

    def retain(self) -> None:
        """Send the events, and remove what need not stay.

        Raises:
            CheckpointConflict: A newer attempt has taken this one's place.
        """
        ...

    def refuse_if_superseded(self) -> None:
        """Return if this attempt may write; raises as :meth:`begin`."""
        ...


class SoleCommitter:
    """Of a process that trains alone; and what rank 0 does for all."""

    def __init__(
        self,
        storage: Storage,
        journal: Journal,
        fence: Fence,
        unchanging: Unchanging,
        *,
        run_id: str,
        keep: int,
        resumed_from: Manifest | None,
        rejected: frozenset[int],
        was_empty: bool,
    ) -> None:
        storage.sweep()
        self._storage = storage
        self._journal = journal
        self._fence = fence
        self._unchanging = unchanging
        self._run_id = run_id
        # Only content that this process wrote or verified is trusted to be there; the rest is written again.
        self.packs = PackStore(storage, journal.attempt)
        if resumed_from is not None:
            self.packs.trust(resumed_from.ranks[0].packs, resumed_from.ranks[0].tensors)
        self.retention = Retention(
            storage,
            journal.attempt,
            run_id,
            keep=keep,
            resumed_from=resumed_from.step if resumed_from else None,
            rejected=rejected,
            was_empty=was_empty,
        )

    def begin(self) -> Found:
        try:
            self._journal.open()  # makes up for a claim that failed at the start
        except FileExistsError as err:
            raise CheckpointConflict(
                f"Another process became attempt {self._journal.attempt} in {self._storage.url}, so this one stops.",
                why="This one could not write there when it began.",
                do="End the process that is not wanted.",
            ) from err
        self._fence.refuse_if_superseded()
        return Found(*self.retention.forget_removed())

    def commit(self, step: int, staged: StagedState, meta: dict[str, object]) -> Committed:
        tensors = self.packs.store(staged.tensors)
        state = write_state(self._storage, self._journal.attempt, staged)
        manifest = self.commit_manifest(step, (RankFiles(state, tensors.packs, tensors.entries),), meta)
        for tensor, entry in zip(staged.tensors, tensors.entries, strict=True):
            self._unchanging.committed(tensor.name, entry.hash, tensor.identity)
        return Committed(manifest.total_bytes, tensors.written_bytes + state.size_bytes)

    def commit_manifest(self, step: int, ranks: tuple[RankFiles, ...], meta: dict[str, object]) -> Manifest:
        """Write the manifest of a checkpoint whose files are durable."""
        manifest = Manifest(step=step, run_id=self._run_id, attempt=self._journal.attempt, ranks=ranks, meta=dict(meta))
        # Until put returns, the manifest may be there without being durable, as when its folder's fsync fails.
        self.retention.in_doubt(step)
        # The last look at the fence and the write are one: nothing of a newer attempt's is ever replaced.
        self._storage.put_if(manifest.key, [format_manifest(manifest)], lambda _: self._fence.refuse_if_superseded())
        self.retention.committed(manifest)
        return manifest

    def retain(self) -> None:
        self.drop()

    def drop(self) -> list[str]:
        """Do what :meth:`retain` does; return the packs that were removed."""
        self._journal.flush()
        self._fence.refuse_if_superseded()
        dropped, removed = self.retention.drop()
        for step in dropped:
            self._journal.write(CheckpointDropped(attempt=self._journal.attempt, step=step))
        for key in removed:
            self.packs.forget(key)
        return removed

    def refuse_if_superseded(self) -> None:
        self._fence.refuse_if_superseded()


def write_state(storage: Storage, attempt: int, staged: StagedState) -> StoredFile:
    """Write the non-tensor state; return its name and size."""
    file = StoredFile(state_key(content_hash(staged.state), attempt), len(staged.state))
    storage.put(file.key, [staged.state])
    return file
