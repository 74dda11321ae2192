"""The background half of a save: hash, write, commit, retain. Training sees only the copy."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from spotproof.checkpoint.choose import read_manifest
from spotproof.checkpoint.journal import Journal
from spotproof.checkpoint.manifest import (
    MANIFEST_REGEX,
    Manifest,
    RankFiles,
    StoredFile,
    content_hash,
    format_manifest,
    manifest_key,
    state_key,
)
from spotproof.checkpoint.packing import PackStore, TensorChanged
from spotproof.checkpoint.retain import steps_to_keep
from spotproof.checkpoint.stage import StagedState
from spotproof.checkpoint.unchanging import Unchanging
from spotproof.errors import CheckpointConflict, CheckpointDamaged
from spotproof.events import CheckpointCommitted, CheckpointDropped, SaveFailed, SavePostponed, event_file
from spotproof.storage import LocalStorage, Storage

__all__ = ["Writer"]

log = logging.getLogger(__name__)


class Writer:
    """Writes one staged state at a time in a thread of its own, and owns everything in the storage.

    Order of a commit: packs and state first, each atomic and durable; the manifest last. Killed anywhere, the storage
    holds the checkpoints that were committed before, and perhaps packs that no manifest names, which the next
    retention removes.
    """

    def __init__(
        self,
        storage: Storage,
        journal: Journal,
        unchanging: Unchanging,
        *,
        run_id: str,
        keep: int,
        resumed_from: Manifest | None,
        rejected: frozenset[int],
    ) -> None:
        self._storage = storage
        self._journal = journal
        self._unchanging = unchanging
        self._run_id = run_id
        self._keep = keep
        self._resumed_from = resumed_from.step if resumed_from else None
        # One thread for all saves: to start one for each would be a part of each stall.
        self._thread = threading.Thread(target=self._serve, name="spotproof-write", daemon=True)
        self._saves: queue.SimpleQueue[tuple[int, StagedState, dict[str, object]]] = queue.SimpleQueue()
        self._is_idle = threading.Event()
        self._is_idle.set()
        self.conflict: CheckpointConflict | None = None
        """Set when a newer attempt was found to write here; this one must stop."""
        self.last_durable_seconds: float | None = None
        """From the end of the stall to the commit, of the last save."""
        self.last_committed_step = self._resumed_from
        """Of the newest checkpoint that this process wrote or resumed from."""
        self.must_repeat = False
        """Whether the last save was given up because a tensor that was taken to be unchanging had changed."""
        self._busy_since = 0.0
        self._failures: list[str] = []
        """Reasons of the failed saves since the last good one."""

        if isinstance(storage, LocalStorage):
            storage.sweep()
        # What lies here at the start came from the mirror or from an attempt that ended: no upload is pending for it.
        self._at_start = {entry.key for entry in storage.list()}
        # Only content that this process wrote or verified is trusted to be there; the rest is written again.
        self._packs = PackStore(storage)
        for files in resumed_from.ranks if resumed_from else ():
            self._packs.trust(files.packs, files.tensors)
        self._manifests: dict[int, Manifest] = {}
        self._damaged: set[str] = set()
        for key in self._at_start:
            match = MANIFEST_REGEX.fullmatch(key)
            if match is None:
                continue
            try:
                if int(match[1]) in rejected:
                    raise CheckpointDamaged(f"{key} did not verify.")
                self._manifests[int(match[1])] = read_manifest(storage, key)
            except CheckpointDamaged:
                self._damaged.add(key)

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way; then its staged buffers must not be touched."""
        return not self._is_idle.is_set()

    @property
    def busy_seconds(self) -> float:
        """Return how long the save under way has been written for."""
        return time.monotonic() - self._busy_since if self.is_busy else 0.0

    def submit(self, step: int, staged: StagedState, meta: dict[str, object]) -> None:
        """Start writing *staged*; the caller has made sure that no save is under way."""
        assert not self.is_busy
        self._busy_since = time.monotonic()
        self._is_idle.clear()
        if not self._thread.is_alive():
            self._thread.start()
        self._saves.put((step, staged, meta))

    def wait(self, timeout: float | None = None) -> bool:
        """Return when no save is under way, or after *timeout* seconds; tell whether none is."""
        return self._is_idle.wait(timeout)

    def _serve(self) -> None:
        while True:
            save = self._saves.get()
            try:
                self._run(*save)
            finally:
                del save  # holds tensors of the training
                self._is_idle.set()

    def _run(self, step: int, staged: StagedState, meta: dict[str, object]) -> None:
        began = time.perf_counter()
        self.must_repeat = False
        try:
            self._refuse_if_fenced()
            manifest, written_bytes = self._commit(step, staged, meta)
        except TensorChanged as err:
            for name in err.names:
                self._unchanging.disappointed(name)
            self.must_repeat = True
            self._journal.write(SavePostponed(attempt=self._journal.attempt, step=step))
            log.debug("The save of step %d is made again: %s.", step, err)
            return
        except CheckpointConflict as err:
            self.conflict = err
            self._journal.write(SaveFailed(attempt=self._journal.attempt, step=step, reason=str(err)))
            return
        except Exception as err:  # whatever the storage raises, training and the older checkpoints must not die of it
            self._failed(step, err)
            return
        self.last_durable_seconds = time.perf_counter() - began
        self.last_committed_step = step
        self._journal.write(
            CheckpointCommitted(
                attempt=self._journal.attempt,
                step=step,
                stall_seconds=round(staged.stall_seconds, 6),
                durable_seconds=round(self.last_durable_seconds, 6),
                total_bytes=manifest.total_bytes,
                written_bytes=written_bytes,
            )
        )
        if self._failures:
            log.warning(
                "Step %d is saved: %s can be written to again, after %d saves that failed.",
                step,
                self._storage.url,
                len(self._failures),
            )
            self._failures.clear()
        try:
            self._journal.flush()
            self._retain()
        except OSError as err:
            log.warning("Old checkpoints in %s could not be removed: %s. They are tried again.", self._storage.url, err)

    def _failed(self, step: int, err: Exception) -> None:
        self._journal.write(SaveFailed(attempt=self._journal.attempt, step=step, reason=f"{err!r}"))
        reason = f"{type(err).__name__} {err.errno if isinstance(err, OSError) else err}"
        if reason not in self._failures:  # said once, not at every save
            log.warning(
                "The checkpoint of step %d could not be written to %s: %s. Training goes on; the older checkpoints are "
                "untouched, and the next save tries again. Free space or mend the folder if this repeats.",
                step,
                self._storage.url,
                err,
            )
        self._failures.append(reason)

    def _refuse_if_fenced(self) -> None:
        newer = self._journal.attempt + 1
        if self._storage.head(event_file(newer)) is not None:
            raise CheckpointConflict(
                f"Attempt {newer} writes to {self._storage.url} too, so attempt {self._journal.attempt} stops.",
                why="Two processes that train the same run would overwrite each other's checkpoints.",
                do="Give each run a folder of its own, or end the other process.",
            )

    def _commit(self, step: int, staged: StagedState, meta: dict[str, object]) -> tuple[Manifest, int]:
        tensors = self._packs.store(staged.tensors)
        state = StoredFile(state_key(content_hash(staged.state)), len(staged.state))
        self._storage.put(state.key, [staged.state])
        manifest = Manifest(
            step=step,
            run_id=self._run_id,
            attempt=self._journal.attempt,
            ranks=(RankFiles(state, tensors.packs, tensors.entries),),
            meta=dict(meta),
        )
        self._storage.put(manifest.key, [format_manifest(manifest)])
        self._manifests[step] = manifest
        self._at_start.discard(manifest.key)
        self._damaged.discard(manifest.key)
        for tensor, entry in zip(staged.tensors, tensors.entries, strict=True):
            self._unchanging.committed(tensor.name, entry.hash, tensor.identity)
        return manifest, tensors.written_bytes + state.size_bytes

    def _retain(self) -> None:
        kept = steps_to_keep(
            self._manifests.keys(),
            safe=list(filter(self._is_safe(), self._manifests)),
            keep=self._keep,
            resumed_from=self._resumed_from,
        )
        for key in sorted(self._damaged):
            self._storage.delete(key)
        self._damaged.clear()
        for step in sorted(self._manifests.keys() - kept):
            self._storage.delete(manifest_key(step))  # the manifest first: no manifest may name what is gone
            del self._manifests[step]
            self._journal.write(CheckpointDropped(attempt=self._journal.attempt, step=step))
        named = {file.key for manifest in self._manifests.values() for file in manifest.files}
        for entry in self._storage.list("packs/"):
            if entry.key not in named:
                self._storage.delete(entry.key)
                self._packs.forget(entry.key)

    def _is_safe(self) -> Callable[[int], bool]:
        mirrored = self._storage.mirrored_keys() if isinstance(self._storage, LocalStorage) else None
        if mirrored is None:
            return lambda step: True
        safe_keys = mirrored | self._at_start

        def is_safe(step: int) -> bool:
            manifest = self._manifests[step]
            return manifest.key in safe_keys and all(file.key in safe_keys for file in manifest.files)

        return is_safe
