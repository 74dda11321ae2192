"""SpotLoop: for a training loop of one's own, what the callback is for Lightning."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Literal

from spotproof.checkpoint import RngState, Stateful
from spotproof.checkpoint.tuning import DEFAULT_OVERHEAD_BUDGET
from spotproof.errors import SpecError
from spotproof.events import Warned
from spotproof.loop.boundary import Boundary
from spotproof.loop.notice import NoticeSource
from spotproof.loop.opening import open_training
from spotproof.loop.progress import ProgressReport
from spotproof.loop.saves import ERROR_PATIENCE_SECONDS, ScheduledSaves

__all__ = ["SpotLoop"]

log = logging.getLogger(__name__)

_AT_END = {"between": "end"}


class SpotLoop:
    """Save between two steps when it is due, leave in time after a notice, resume exactly there.

    Register what has state: the model, the optimizer, the scheduler, the scaler, the loader (as
    :func:`~spotproof.checkpoint.resumable_loader`), and counters of your own. The global generators of python, numpy
    and torch are part of it already. Killed at any instant, the program then ends as an undisturbed one would have.

    Where ``torch.distributed`` is initialised before :meth:`begin`, the processes of the training save, leave and
    resume together, each its own state. Every one makes the same calls; register the DistributedDataParallel.

    Example::

        loader = resumable_loader(DataLoader(data, shuffle=True))
        with SpotLoop("checkpoints") as spot:
            for name, part in (("model", model), ("optimizer", optimizer), ("loader", loader)):
                spot.register(name, part)
            step = spot.begin()
            while step < num_steps:
                for batch in loader:
                    train_on(batch)
                    step += 1
                    spot.step_done(step)
    """

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        *,
        every_n_steps: int | None = None,
        every_n_seconds: float | Literal["auto"] | None = "auto",
        overhead_budget: float = DEFAULT_OVERHEAD_BUDGET,
        keep: int = 2,
        notices: Sequence[NoticeSource] | None = None,
        grace_seconds: float | None = None,
        requeue: bool = True,
    ) -> None:
        """Prepare; touches nothing yet.

        Args:
            dirpath: Folder for checkpoints; by default ``SM_CHECKPOINT_DIR``, else what SageMaker's
                checkpointconfig.json says, else ``checkpoints``.
            every_n_steps: Steps between saves. Both triggers may be set; whichever comes first counts.
            every_n_seconds: Seconds between saves, None, or ``"auto"``: what loses least, by the measured cost of a
                save and the mean uptime between interruptions.
            overhead_budget: Share of the running time that saves may take in ``"auto"``.
            keep: Newest checkpoints kept, at least 2.
            notices: What to listen to: ``"sigterm"``, ``"sigusr1"``, ``"sigusr2"``, ``"ec2"``. By default SIGTERM, and
                SIGUSR1 in a Slurm job.
            grace_seconds: From a notice to the kill; a save that can't be done by then is not begun. By default
                ``SPOTPROOF_GRACE_SECONDS``, else 30 on Kubernetes and Slurm, else 120.
            requeue: Whether to run ``scontrol requeue`` after Slurm's SIGUSR1.

        Raises:
            SpecError: A value is out of range, or no trigger is set.
        """
        opened = open_training(
            dirpath,
            every_n_steps=every_n_steps,
            every_n_seconds=every_n_seconds,
            overhead_budget=overhead_budget,
            keep=keep,
            notices=notices,
            grace_seconds=grace_seconds,
            requeue=requeue,
        )
        self.dirpath = opened.dirpath
        self.checkpointer, self._departure = opened.checkpointer, opened.departure
        self._saves = ScheduledSaves(self.checkpointer, opened.schedule, self.warn, overhead_budget=overhead_budget)
        self._boundary = Boundary(self.checkpointer, self._departure, self._saves)
        self._progress = ProgressReport(self.checkpointer)
        self._step: int | None = None
        self._is_at_end = False
        """Whether this run goes on from the end of a training, and no step was added."""

    def register(self, name: str, stateful: Stateful) -> None:
        """Make *stateful* part of the training, under *name*; before :meth:`begin`.

        Raises:
            SpecError: The name is taken, or the object has no state.
        """
        if self._step is not None:
            raise SpecError(f"{name!r} is registered after begin().", do="Register everything before the loop begins.")
        self.checkpointer.register(name, stateful)

    def begin(self, *, total_steps: int | None = None) -> int:
        """Restore the newest whole checkpoint, listen for notices, return the step to go on from: 0 at a fresh start.

        Call it last before the loop, for from here on the generators of random numbers are where they were.

        Args:
            total_steps: After which step the training will be done, if that is known; for who watches it.

        Raises:
            ResumeMismatch: The checkpoint is of another program.
            UnsafeState: A registered state could not be read back safely.
        """
        self.register("rng", RngState())  # the last to be restored: others may draw when they load
        self.checkpointer.restore()
        return self.begin_restored(total_steps=total_steps)

    def begin_restored(self, *, total_steps: int | None = None) -> int:
        """Begin as :meth:`begin` does, where the caller has read the checkpoint to go on from, or found none."""
        manifest = self.checkpointer.resumed_from
        self._departure.start()
        self.checkpointer.begin()
        self._departure.tell_deafness()
        self._step = step = 0 if manifest is None else manifest.step
        self._is_at_end = manifest is not None and manifest.meta.get("between") == _AT_END["between"]
        self._saves.begin(step)
        self._progress.plan(total_steps)
        self._progress.tell(step, 0)
        if manifest is None:
            # At once, so that a state that can't be saved is refused before an hour of training depends on it, and so
            # that a kill in the first steps comes back to the same initial weights.
            self._saves.save_step(step, may_defer=True)
        self._saves.batch_begins()
        return step

    @property
    def is_leaving(self) -> bool:
        """Whether a notice came: the next :meth:`step_done` will not return. Of several processes each knows its own;
        the others follow in the same step, or the next."""
        return self._departure.is_wanted

    def step_done(self, step: int, *, epoch: int = 0) -> None:
        """Say that *step* steps are complete, and that nothing is half done: no batch is read, no gradients wait.

        Saves if a save is due: the copy is all that this takes, the rest is done in the background. After a notice the
        step is made durable, and the process left with exit code 143.

        Args:
            step: Optimizer steps that are complete since the beginning of the training.
            epoch: For people, and for the report.

        Raises:
            SystemExit: After a notice.
            CheckpointConflict: Another program has taken over the folder.
        """
        if self._step is None:
            raise SpecError("step_done() came before begin().", do="Call begin() before the loop.")
        self._saves.batch_ended()
        self._step, self._is_at_end = step, False
        self._progress.step_done(step, epoch)
        decision = self._boundary.reached(step)
        if decision.leaves:
            self._departure.leave(step, lambda: self._saves.save_step(step))
        if decision.saves:
            self._saves.save_step(step, may_defer=True)
        self._boundary.left(step)
        self._saves.batch_begins()

    def disturbed(self) -> None:
        """Say that what takes place since the last step is no training step, such as a validation: for ``"auto"``."""
        self._saves.batch_is_disturbed()

    def end(self, step: int | None = None, *, epoch: int = 0) -> None:
        """Save the result, wait until it is durable, and listen no longer. Leaving the ``with`` block does it.

        Args:
            step: Steps that are complete, if :meth:`step_done` was not told of the last.
            epoch: For people.

        Raises:
            SystemExit: After a notice.
            CheckpointConflict: Another program has taken over the folder.
        """
        last = self._step
        if last is None:
            return
        if step is None:
            step = last
        elif step != last:
            self._is_at_end = False
            self._progress.step_done(step, epoch)
        self._step = None
        if not self._is_at_end:
            if self._boundary.settled(step).leaves:
                save = partial(self._saves.save_step, step, meta=_AT_END, is_last=True)
                self._departure.leave(step, save, is_new=True)
            self._saves.save_last(step, meta=_AT_END)
        self.checkpointer.close()
        self._departure.tell_end("finished", step)
        self._departure.stop({})

    def __enter__(self) -> "SpotLoop":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        step = self._step
        if kind is None:
            self.end()
        elif step is not None:
            self._step = None
            if not isinstance(error, SystemExit):
                # A save under way becomes durable; what was trained since is lost, as in a kill.
                self.checkpointer.wait(ERROR_PATIENCE_SECONDS)
                self._departure.tell_end("error", step)
            self._departure.stop({})

    def warn(self, message: str) -> None:
        """Tell the user something, in the log and in the report."""
        log.warning(message)
        self.checkpointer.record(Warned(attempt=self.checkpointer.begin(), message=message))
