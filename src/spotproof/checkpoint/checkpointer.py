"""The Lightning-free core: register what has state, save at step boundaries, restore, close."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from spotproof.checkpoint.buckets import bucket_order
from spotproof.checkpoint.finding import Finder
from spotproof.checkpoint.journal import Journal, RelayedJournal
from spotproof.checkpoint.manifest import Manifest
from spotproof.checkpoint.position import LoaderPosition
from spotproof.checkpoint.ranks import Ranks, find_ranks
from spotproof.checkpoint.snapshots import Snapshots, Stateful
from spotproof.checkpoint.stage import StagedState
from spotproof.checkpoint.start import Start
from spotproof.checkpoint.unchanging import Unchanging
from spotproof.checkpoint.writer import Writer
from spotproof.errors import CheckpointConflict, ResumeMismatch, SpecError, UnsafeState
from spotproof.events import CheckpointRejected, Event, Resumed, SavePostponed
from spotproof.storage import open_storage

__all__ = ["Checkpointer", "Stateful"]

log = logging.getLogger(__name__)

_LAST_EVENTS_SECONDS = 15.0
"""How long the end waits for an object store to take the attempt's last events."""


class Checkpointer:
    """Save and restore registered objects so that a kill at any instant loses no committed checkpoint.

    One training writes to one place; a save stops the caller only for the copy in memory. Call :meth:`save` at step
    boundaries, :meth:`close` at the end. Nothing relies on :meth:`close` being reached.

    Where ``torch.distributed`` is initialised the processes of a training save and resume together, each its own
    state: create one in each process, and call :meth:`restore`, :meth:`begin` and :meth:`save` in all of them, at the
    same step. Register a model in the DistributedDataParallel that it is trained in, or wrap it before the restore.

    Example::

        checkpointer = Checkpointer("checkpoints")
        checkpointer.register("model", model)
        checkpointer.register("optimizer", optimizer)
        start = checkpointer.restore() or 0
        for step in range(start, 1000):
            train_one_step()
            if (step + 1) % 50 == 0:
                checkpointer.save(step + 1)
        checkpointer.close()
    """

    def __init__(self, dirpath: str | os.PathLike[str], *, keep: int = 2, config: dict[str, Any] | None = None) -> None:
        """Prepare; touches nothing.

        Args:
            dirpath: Directory or ``s3://`` prefix.
            keep: Newest checkpoints kept, >= 2.
            config: What to record as the effective configuration.

        Raises:
            SpecError: *keep* is below 2.
        """
        if keep < 2:
            raise SpecError(
                f"keep={keep} is too few.",
                why="The newest checkpoint may turn out damaged, and then the one before it is what is left.",
                do="Keep 2 or more.",
            )
        self.storage = open_storage(dirpath)
        self._keep = keep
        self._config = {"keep": keep, **(config or {})}
        self._statefuls: dict[str, Stateful] = {}
        self._unchanging = Unchanging()
        self._snapshots = Snapshots(self._statefuls, self._unchanging)
        self._writer: Writer | None = None
        self._journal: Journal | RelayedJournal | None = None
        self._resumed_from: Manifest | None = None
        self._finder = Finder(self.storage)
        self._ranks: Ranks | None = None
        self._has_looked_for_ranks = False
        self._held: tuple[int, StagedState, dict[str, Any]] | None = None
        self._is_postponed = False
        self._has_access = False

    def register(self, name: str, stateful: Stateful) -> None:
        """Make *stateful* part of every later save and restore, under *name*.

        Raises:
            SpecError: The name is taken, or the object has no state.
        """
        if name in self._statefuls:
            raise SpecError(f"{name!r} is registered already.", do="Give each object a name of its own.")
        if not (hasattr(stateful, "state_dict") and hasattr(stateful, "load_state_dict")):
            is_loader = hasattr(stateful, "dataset") or hasattr(stateful, "__iter__")
            raise SpecError(
                f"{name!r} can't be saved: {type(stateful).__qualname__} has no state_dict and load_state_dict.",
                do="Register resumable_loader(…) of it, and read from that (one from fabric.setup_dataloaders: wrap "
                "what that returned)."
                if is_loader
                else "Give it both, or register the parts of it that have them.",
            )
        is_resumable_loader = hasattr(stateful, "begin_after")
        self._statefuls[name] = LoaderPosition(cast("Any", stateful)) if is_resumable_loader else stateful
        order = bucket_order(stateful)
        if order is not None:
            self._statefuls[f"{name}:buckets"] = order

    @property
    def attempt(self) -> int | None:
        """The attempt this process is, from 0; None before the first save or restore."""
        return self._journal.attempt if self._journal else None

    @property
    def resumed_from(self) -> Manifest | None:
        """The checkpoint that this run goes on from; None before it was read, and in a fresh start."""
        return self._resumed_from

    @property
    def writer(self) -> Writer | None:
        """The background half; None before :meth:`begin`."""
        return self._writer

    @property
    def must_repeat(self) -> bool:
        """Whether the last save was given up or deferred for a reason that a save now would not meet."""
        writer = self._writer
        if writer is None or writer.is_busy or self._snapshots.is_preparing:
            return False
        return writer.must_repeat or self._snapshots.is_deferred or writer.wants_retry

    @property
    def ranks(self) -> Ranks | None:
        """The processes that train together; None if this one trains alone.

        They are looked for once, by the first call that needs them, which is collective.
        """
        if not self._has_looked_for_ranks:
            self._ranks = find_ranks()
            self._has_looked_for_ranks = True
        return self._ranks

    @property
    def is_lead(self) -> bool:
        """Whether this process speaks for the training: it trains alone, or is rank 0."""
        return self._ranks is None or self._ranks.is_lead

    def all_true(self, value: bool) -> bool:
        """Whether *value* is true in every process of the training. Collective."""
        return value if self._ranks is None else self._ranks.loop.all_true(value)

    def of_lead(self, work: Callable[[], Any]) -> Any:
        """Return what *work* returns in the process that speaks for the training, a JSON value. Collective."""
        return work() if self._ranks is None else self._ranks.loop.lead(work)

    def raise_conflict(self) -> None:
        """Return if no newer attempt was found to write here. Touches nothing, for the step boundaries.

        Raises:
            CheckpointConflict: One was.
        """
        if self._writer is not None and self._writer.conflict is not None:
            raise self._writer.conflict

    def latest(self) -> Manifest | None:
        """Return the newest checkpoint that verifies here, or None; says which newer ones do not, and why.

        What was read to verify it is kept until :meth:`read` or the first save, so that a resume reads it once. Asks no
        other process; :meth:`agreed` does.

        Raises:
            SpecError: The place can't be reached; says why, and what to do.
            CheckpointUnreadable: The storage gives none, but holds one that may be whole.
            ResumeMismatch: There is one that this version, or this machine, can't read.
        """
        self._check_access()
        return self._finder.latest()

    def agreed(self) -> Manifest | None:
        """Return the newest checkpoint that verifies for every process of this training, or None. Collective.

        Raises:
            Exception: As :meth:`latest`, in every process.
            ResumeMismatch: It is of another number of processes.
        """
        ranks = self.ranks
        if ranks is None:
            return self.latest()
        ranks.loop.together(self._check_access)
        return self._finder.agreed(ranks)

    def _check_access(self) -> None:
        if not self._has_access:
            self.storage.check_access()
            self._has_access = True

    def read(self, manifest: Manifest) -> dict[str, Any]:
        """Return the state trees of a checkpoint, by registered name, and note that this run goes on from it.

        Raises:
            CheckpointDamaged: A file does not verify.
            ResumeMismatch: It was written by another number of processes, or holds something that this program can't
                read.
        """
        ranks = self.ranks
        rank, world_size = (0, 1) if ranks is None else (ranks.rank, ranks.world_size)
        trees = self._finder.read(manifest, rank=rank, world_size=world_size).decoded()
        self._resumed_from = manifest
        return trees

    def restore(self) -> int | None:
        """Load the newest checkpoint that verifies into the registered objects; return its step, or None.

        Raises:
            ResumeMismatch: It does not hold a state for each registered name, or is of another number of processes.
        """
        began = time.perf_counter()
        manifest = self.agreed()
        if manifest is None:
            self.begin()
            return None
        trees = self.read(manifest)
        missing = self._statefuls.keys() - trees.keys()
        if missing:
            raise ResumeMismatch(
                f"Checkpoint {manifest.key} has no state for {', '.join(sorted(missing))}.",
                why=f"It holds {', '.join(sorted(trees))}.",
                do="Register the same names as the run that wrote it, or start in an empty folder.",
            )
        for name, stateful in self._statefuls.items():
            stateful.load_state_dict(trees[name])
        self.begin()
        self.record(Resumed(attempt=self.begin(), step=manifest.step, seconds=time.perf_counter() - began))
        return manifest.step

    def begin(self) -> int:
        """Claim the next attempt number and become the writer of this place; return the number. Idempotent.

        Nothing tells a container which attempt it is, so the number is one more than any that left a trace here. The
        attempts before it must stop writing: their next save raises CheckpointConflict.

        Raises:
            SpecError: The place can't be reached, or nothing can ever be written to it; says why, and what to do.
        """
        if self._journal is None:
            ranks = self.ranks
            if ranks is None:
                self._check_access()
            else:
                ranks.loop.together(self._check_access)
            start = Start(
                storage=self.storage,
                unchanging=self._unchanging,
                config=self._config,
                keep=self._keep,
                resumed_from=self._resumed_from,
                finder=self._finder,
            )
            self._journal, self._writer = start.alone() if ranks is None else start.together(ranks)
            for step, reason in sorted(self._finder.rejected.items()):
                self.record(CheckpointRejected(attempt=self._journal.attempt, step=step, reason=reason))
        return self._journal.attempt

    def record(self, event: Event) -> None:
        """Append *event* to this attempt's file."""
        assert self._journal is not None
        self._journal.write(event)

    def save(
        self, step: int, *, meta: dict[str, Any] | None = None, wait: bool = False, may_defer: bool = False
    ) -> bool:
        """Copy the state of all registered objects and write it in the background.

        Args:
            step: Completed optimizer steps.
            meta: Small facts for people.
            wait: Return only when it is durable; waits for a save under way first.
            may_defer: If much of the state has no buffer yet (at the first save, and when an optimizer has made its
                state), do not stop for making them: they are made in the background, nothing is saved now, and
                :attr:`must_repeat` tells when to call again.

        Returns:
            False if the save before is still being written, or it was deferred: then nothing was saved. Call again at
            a later step.

        Raises:
            UnsafeState: A state could not be read back safely; names where and which type.
            CheckpointConflict: A newer attempt writes to the same place.
        """
        self.begin()
        writer = self._writer
        assert writer is not None
        self._finder.forget()
        self._held = None
        if wait:
            self.wait()
        if not self._may_save(writer, step):
            return False
        staged = self._staged(may_defer=may_defer and not wait)
        if staged is None:
            return False
        writer.submit(step, staged, meta or {})
        self._is_postponed = False
        if wait:
            writer.wait()
            if writer.must_repeat:  # at rest now, and copied whole, there is nothing left that can have changed
                self._unchanging.clear()
                again = self._staged(may_defer=False)
                assert again is not None
                writer.submit(step, again, meta or {})
                writer.wait()
            self.raise_conflict()
        return True

    def _may_save(self, writer: Writer, step: int) -> bool:
        """Whether no process is busy with the save before.

        Raises:
            CheckpointConflict: A newer attempt writes to the same place.
        """
        is_preparing, is_busy = self._snapshots.is_preparing, writer.is_busy
        if self._ranks is None:
            self.raise_conflict()
        else:
            flags = [writer.conflict is not None, is_preparing, is_busy]
            has_conflict, is_preparing, is_busy = map(bool, self._ranks.loop.maximum([int(flag) for flag in flags]))
            if has_conflict:
                self.wait()
                self.raise_conflict()
                raise CheckpointConflict(
                    f"Another attempt writes to {self.storage.url} too, so this one stops.",
                    do="Give each run a folder of its own, or end the process that is not wanted.",
                )
        if is_busy and not is_preparing:
            self._note_postponed(step)
        return not (is_busy or is_preparing)

    def _staged(self, *, may_defer: bool) -> StagedState | None:
        """Return a copy of the state; None in every process if one of them has to make its buffers first.

        Raises:
            Exception: What a state raised, in every process.
        """
        take = self._snapshots.take_or_defer if may_defer else self._snapshots.take
        if self._ranks is None:
            return take()
        staged: StagedState | None = None
        failure: Exception | None = None
        try:
            staged = take()
        except Exception as err:  # a user's state_dict may raise anything; the others must not wait for this one
            failure = err
        has_failed, is_deferred = self._ranks.loop.maximum([failure is not None, failure is None and staged is None])
        if failure is not None:
            raise failure
        if has_failed:
            raise UnsafeState(
                "The state of another rank could not be saved.", do="Look at what that process says of its own."
            )
        self._snapshots.is_deferred = bool(is_deferred)
        return None if is_deferred else staged

    def hold(self, step: int, *, meta: dict[str, Any] | None = None) -> bool:
        """Copy the state as :meth:`save` does, but write nothing: that is for :meth:`save_held`, should it be needed.

        The next :meth:`save` or :meth:`hold` replaces the copy. Returns False if a save is under way.

        Raises:
            UnsafeState: A state could not be read back safely; names where and which type.
        """
        self.begin()
        assert self._writer is not None
        assert self._ranks is None, "held copies are written by one process alone"
        self._held = None
        if self._writer.is_busy or self._snapshots.is_preparing:
            return False
        self._held = (step, self._snapshots.take(copy_all=True), meta or {})
        return True

    @property
    def held_step(self) -> int | None:
        """The step that :meth:`save_held` would write."""
        return self._held[0] if self._held else None

    def save_held(self) -> None:
        """Write in the background what :meth:`hold` copied; no save has been made since."""
        assert self._held is not None
        assert self._writer is not None
        self._writer.submit(*self._held)
        self._held = None

    def _note_postponed(self, step: int) -> None:
        if not self._is_postponed:
            self._is_postponed = True
            self.record(SavePostponed(attempt=self.begin(), step=step))

    def wait(self, timeout: float | None = None) -> bool:
        """Return when no save is under way, or after *timeout* seconds; tell whether none is."""
        self._snapshots.wait(timeout)
        return self._writer is None or self._writer.wait(timeout)

    def flush_events(self) -> None:
        """Send this attempt's events where they are not written at once; give up after some seconds."""
        journal = self._journal
        if journal is None:
            return

        def send() -> None:
            try:
                journal.flush()
            except OSError as err:
                log.debug("The last events of attempt %d were not sent: %s.", journal.attempt, err)

        sending = threading.Thread(target=send, name="spotproof-events", daemon=True)
        sending.start()
        sending.join(_LAST_EVENTS_SECONDS)

    def close(self) -> None:
        """Wait for a save under way, and send what has happened. The object can be used again."""
        self.wait()
        self.flush_events()
