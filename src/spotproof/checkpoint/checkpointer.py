"""The Lightning-free core: register what has state, save at step boundaries, restore, close."""

import gc
import logging
import os
import platform
import threading
import time
import uuid
from typing import Any, Protocol

import torch

from spotproof._version import __version__
from spotproof.checkpoint.choose import newest
from spotproof.checkpoint.journal import Journal, recorded_attempts
from spotproof.checkpoint.manifest import Manifest
from spotproof.checkpoint.restore import ReadState, read_state
from spotproof.checkpoint.stage import StagedState, Stager
from spotproof.checkpoint.tree import TreeEncoder
from spotproof.checkpoint.unchanging import Unchanging
from spotproof.checkpoint.writer import Writer
from spotproof.errors import CheckpointDamaged, ResumeMismatch, SpecError
from spotproof.events import AttemptStarted, CheckpointRejected, Event, Resumed, SavePostponed, SaveStalled
from spotproof.storage import open_storage

__all__ = ["Checkpointer", "Stateful"]

log = logging.getLogger(__name__)

_MAX_COLD_BYTES = 16 * 2**20
"""New buffers up to here are made while training stands still."""
_STALLED_SECONDS = 60.0
_STALLED_FACTOR = 10
"""A save is called stalled when it has taken this many times what the one before took, and a minute at least."""


class Stateful(Protocol):
    """PyTorch's own protocol: modules, optimizers, schedulers and loaders have it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Checkpointer:
    """Save and restore registered objects so that a kill at any instant loses no committed checkpoint.

    One process writes to one place; a save stops the caller only for the copy in memory. Call :meth:`save` at step
    boundaries, :meth:`close` at the end. Nothing relies on :meth:`close` being reached.

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
        self._stager = Stager(self._unchanging)
        self._writer: Writer | None = None
        self._journal: Journal | None = None
        self._resumed_from: Manifest | None = None
        self._rejected: dict[int, str] = {}
        self._read_ahead: tuple[Manifest, ReadState] | None = None
        self._held: tuple[int, StagedState, dict[str, Any]] | None = None
        self._preparation: threading.Thread | None = None
        self._is_deferred = False
        self._is_postponed = False
        self._is_stalled = False

    def register(self, name: str, stateful: Stateful) -> None:
        """Make *stateful* part of every later save and restore, under *name*.

        Raises:
            SpecError: The name is taken.
        """
        if name in self._statefuls:
            raise SpecError(f"{name!r} is registered already.", do="Give each object a name of its own.")
        self._statefuls[name] = stateful

    @property
    def attempt(self) -> int | None:
        """The attempt this process is, from 0; None before the first save or restore."""
        return self._journal.attempt if self._journal else None

    @property
    def writer(self) -> Writer | None:
        """The background half; None before :meth:`begin`."""
        return self._writer

    @property
    def must_repeat(self) -> bool:
        """Whether the last save was given up or deferred for a reason that a save now would not meet."""
        if self._preparation is not None and self._preparation.is_alive():
            return False
        writer = self._writer
        return writer is not None and not writer.is_busy and (writer.must_repeat or self._is_deferred)

    def latest(self) -> Manifest | None:
        """Return the newest checkpoint that verifies, or None; says which newer ones do not, and why.

        What was read to verify it is kept until :meth:`read` or the first save, so that a resume reads it once.
        """

        def rejected(step: int, err: CheckpointDamaged) -> None:
            if self._rejected.get(step) != str(err):
                log.warning("Checkpoint of step %d is passed over for the next older one: %s", step, err)
            self._rejected[step] = str(err)

        self._read_ahead = None
        self._read_ahead = newest(self.storage, lambda manifest: read_state(self.storage, manifest), rejected)
        return self._read_ahead[0] if self._read_ahead is not None else None

    def read(self, manifest: Manifest) -> dict[str, Any]:
        """Return the state trees of a checkpoint, by registered name, and note that this run goes on from it.

        Raises:
            CheckpointDamaged: A file does not verify.
            ResumeMismatch: It holds something that this program can't read.
        """
        ahead, self._read_ahead = self._read_ahead, None
        state = ahead[1] if ahead is not None and ahead[0] == manifest else read_state(self.storage, manifest)
        trees = state.decoded()
        self._resumed_from = manifest
        return trees

    def restore(self) -> int | None:
        """Load the newest checkpoint that verifies into the registered objects; return its step, or None.

        Raises:
            ResumeMismatch: It does not hold a state for each registered name.
        """
        began = time.perf_counter()
        manifest = self.latest()
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

        Nothing tells a container which attempt it is, so the number is one more than any that left a trace here.
        """
        if self._journal is None:
            newest = self._resumed_from
            traces = [*recorded_attempts(self.storage), *([newest.attempt] if newest else [])]
            run_id = newest.run_id if newest else uuid.uuid4().hex
            self._journal = Journal(self.storage, max(traces, default=-1) + 1)
            attempt = self._journal.attempt
            self.record(
                AttemptStarted(
                    attempt=attempt,
                    run_id=run_id,
                    config=self._config,
                    versions={
                        "python": platform.python_version(),
                        "torch": torch.__version__,
                        "spotproof": __version__,
                    },
                )
            )
            for step, reason in sorted(self._rejected.items()):
                self.record(CheckpointRejected(attempt=attempt, step=step, reason=reason))
            self._writer = Writer(
                self.storage,
                self._journal,
                self._unchanging,
                run_id=run_id,
                keep=self._keep,
                resumed_from=newest,
                rejected=frozenset(self._rejected),
            )
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
        self._read_ahead = self._held = None
        if wait:
            self.wait()
        if writer.conflict is not None:
            raise writer.conflict
        if self._preparation is not None and self._preparation.is_alive():
            return False
        if writer.is_busy:
            self._note_postponed(step, writer.busy_seconds, writer.last_durable_seconds)
            return False
        staged = self._staged(may_defer=may_defer and not wait)
        self._is_deferred = staged is None
        if staged is None:
            return False
        writer.submit(step, staged, meta or {})
        self._is_postponed = self._is_stalled = False
        if wait:
            writer.wait()
            if writer.must_repeat:  # at rest now, and copied whole, there is nothing left that can have changed
                self._unchanging.clear()
                writer.submit(step, self._copied(), meta or {})
                writer.wait()
            if writer.conflict is not None:
                raise writer.conflict
        return True

    def hold(self, step: int, *, meta: dict[str, Any] | None = None) -> bool:
        """Copy the state as :meth:`save` does, but write nothing: that is for :meth:`save_held`, should it be needed.

        The next :meth:`save` or :meth:`hold` replaces the copy. Returns False if a save is under way.

        Raises:
            UnsafeState: A state could not be read back safely; names where and which type.
        """
        self.begin()
        assert self._writer is not None
        self._held = None
        if self._writer.is_busy or (self._preparation is not None and self._preparation.is_alive()):
            return False
        self._held = (step, self._copied(copy_all=True), meta or {})
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

    def _note_postponed(self, step: int, busy_seconds: float, usual_seconds: float | None) -> None:
        if not self._is_postponed:
            self._is_postponed = True
            self.record(SavePostponed(attempt=self.begin(), step=step))
        if not self._is_stalled and busy_seconds > max(_STALLED_SECONDS, _STALLED_FACTOR * (usual_seconds or 0.0)):
            self._is_stalled = True
            self.record(SaveStalled(attempt=self.begin(), step=step, seconds=round(busy_seconds, 1)))
            log.warning(
                "A save to %s has been under way for %.0f s (the one before took %s). Until it is through, a reclaim "
                "loses all that was trained since the checkpoint before. Check the disk or the network.",
                self.storage.url,
                busy_seconds,
                f"{usual_seconds:.1f} s" if usual_seconds is not None else "no time yet: it is the first",
            )

    def _copied(self, *, copy_all: bool = False) -> StagedState:
        staged = self._staged(may_defer=False, copy_all=copy_all)
        assert staged is not None
        return staged

    def _staged(self, *, may_defer: bool, copy_all: bool = False) -> StagedState | None:
        began = time.perf_counter()
        collects = gc.isenabled()
        # The trees are thousands of small objects that live for milliseconds. Counted, they would set off a full
        # collection within the stall: some 200 ms in a process that has imported torch and Lightning.
        gc.disable()
        try:
            encoder = TreeEncoder()
            trees = {name: encoder.encode(s.state_dict(), name) for name, s in self._statefuls.items()}
            if may_defer and self._stager.cold_bytes(encoder.tensors) > _MAX_COLD_BYTES:
                prepare = self._stager.prepare(encoder.tensors)
                self._preparation = threading.Thread(target=prepare, name="spotproof-prepare", daemon=True)
                self._preparation.start()
                return None
            return self._stager.stage(trees, encoder.tensors, began=began, copy_all=copy_all)
        finally:
            if collects:
                gc.enable()

    def wait(self, timeout: float | None = None) -> bool:
        """Return when no save is under way, or after *timeout* seconds; tell whether none is."""
        if self._preparation is not None:
            self._preparation.join(timeout)
        return self._writer is None or self._writer.wait(timeout)

    def close(self) -> None:
        """Wait for a save under way. The object can be used again."""
        self.wait()
