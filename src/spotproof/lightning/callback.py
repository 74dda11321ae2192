"""SpotCheckpoint: the one line that makes a Lightning training survive a kill at any instant, bit for bit."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from spotproof.checkpoint import Manifest, read_manifest
from spotproof.checkpoint.buckets import bucket_order
from spotproof.checkpoint.finding import refuse_other_world
from spotproof.checkpoint.restore import read_state
from spotproof.checkpoint.tuning import DEFAULT_OVERHEAD_BUDGET
from spotproof.contract import ENV_JOB_NAME
from spotproof.errors import ResumeMismatch, SpecError
from spotproof.events import LoggerOpened, Resumed, Warned
from spotproof.lightning import _private as private
from spotproof.lightning._attributes import ChangedAttributes
from spotproof.lightning._files import KnownFiles
from spotproof.lightning._inexact import inexact_parts, missing_steps
from spotproof.lightning._io import SpotCheckpointIO
from spotproof.lightning._loggers import LoggersOfRun, folders_of_unsaved, keep_rows
from spotproof.lightning._saves import Saves
from spotproof.lightning._steps import planned_steps
from spotproof.lightning._waiting import Waiting
from spotproof.loop.boundary import Boundary
from spotproof.loop.notice import NoticeSource, Woken
from spotproof.loop.opening import open_training
from spotproof.loop.progress import ProgressReport
from spotproof.loop.saves import ERROR_PATIENCE_SECONDS
from spotproof.storage import open_storage

__all__ = ["SpotCheckpoint"]

log = logging.getLogger(__name__)

_BATCHES_WITHOUT_STEP = 50
"""With manual optimization, after so many batches there should have been a step."""


class SpotCheckpoint(Callback):
    """Save between two batches, in the background; resume exactly there.

    Killed at any instant, a script with this callback and ``ckpt_path=spot.latest()`` ends with the parameters,
    optimizer, metrics and random-number states of an undisturbed run. That needs what an undisturbed run needs to be
    repeatable: seeds (``seed_everything``) and deterministic kernels.

    Example::

        spot = SpotCheckpoint()
        trainer = L.Trainer(callbacks=[spot])
        trainer.fit(model, datamodule=data, ckpt_path=spot.latest())
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
            dirpath: Folder or ``s3://bucket/prefix``; by default ``SM_CHECKPOINT_DIR``, else what SageMaker's
                checkpointconfig.json says, else ``checkpoints``.
            every_n_steps: Optimizer steps between saves. Both triggers may be set; whichever comes first counts.
            every_n_seconds: Seconds between saves, None, or ``"auto"``: what loses least, by the measured cost of a
                save and the mean uptime between interruptions.
            overhead_budget: Share of the running time that saves may take in ``"auto"``: their stalls and what they
                slow the steps down.
            keep: Newest checkpoints kept, at least 2.
            notices: What to listen to: ``"sigterm"``, ``"sigusr1"``, ``"sigusr2"``, ``"ec2"`` (the metadata service
                of a spot instance). By default SIGTERM, and SIGUSR1 in a Slurm job.
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
        self._checkpointer, self._departure = opened.checkpointer, opened.departure
        self._saves = Saves(self._checkpointer, opened.schedule, self._warn, overhead_budget=overhead_budget)
        self._progress = ProgressReport(self._checkpointer)
        self._hooks: private.FitHooks | None = None
        self._notice_hooks: private.NoticeHooks | None = None
        self._boundary: Boundary | None = None
        self._waiting: Waiting | None = None
        self._resumed: dict[str, Any] | None = None
        self._begins_anew = False
        """Whether there are checkpoints, but none that all ranks can go on from."""
        self._own_weights: dict[str, Any] | None = None
        """Of this rank, until training begins: to wrap the model, DDP gives every rank those of rank 0."""
        self._resumed_step: int | None = None
        self._offered: Manifest | None = None
        self._loggers: LoggersOfRun | None = None
        self._load_seconds = 0.0
        self._has_trained = self._has_begun = False
        self._num_batches = self._first_step = 0

    def latest(self) -> str | None:
        """Return the newest checkpoint that verifies, for ``fit(ckpt_path=…)``, or None if there is none.

        Checkpoints that are cut short or altered are passed over for the next older one, with a warning. Of several
        ranks each calls this for itself; ``fit`` then takes the newest that verifies for all of them.
        """
        manifest = self._offered = self._checkpointer.latest()
        if manifest is not None:
            keep_rows(manifest.meta.get("loggers", []))
        return self._place_of(manifest)

    # -- set-up ------------------------------------------------------------------------------------------------------

    def setup(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Hook into the fit loop; Lightning calls this before it loads the checkpoint."""
        if stage != "fit":
            return
        private.refuse_strategy(trainer)
        strategy = trainer.strategy
        if not isinstance(strategy.checkpoint_io, SpotCheckpointIO):
            strategy.checkpoint_io = SpotCheckpointIO(strategy.checkpoint_io, self._load)
        self._hooks = private.FitHooks(
            trainer,
            before_batch=lambda: self._at_safe_point(trainer),
            after_training=lambda: self._at_end(trainer),
            before_loaders=lambda stage: self._saves.run.before_loaders(stage, self._resumed),
            on_order_mismatch=self._warn,
        )
        self._saves.run.trainer = trainer
        self._has_trained = self._has_begun = False
        self._resumed = None
        self._departure.start()
        self._boundary = boundary = Boundary(self._checkpointer, self._departure, self._saves)
        self._waiting = waiting = Waiting(trainer, self._checkpointer, self._departure, self._saves, boundary)
        self._notice_hooks = private.NoticeHooks(
            trainer,
            before_fetch=waiting.fetch_begins,
            after_fetch=waiting.fetch_ended,
            before_validation=waiting.validation_follows,
            before_owed_validation=lambda: self._begin_training(trainer),
            on_woken=waiting.woken,
            wake=Woken,
        )
        self._loggers = self._saves.run.loggers = LoggersOfRun(trainer, self._warn)
        if trainer.world_size > 1:
            self._agree(trainer)
        if self._offered is not None:
            # Before other callbacks look where the logger writes: ModelCheckpoint's folder follows it.
            meta = self._offered.meta
            self._loggers.follow(meta.get("loggers", []), meta.get("logged_steps", 0))
        elif trainer.ckpt_path is None and self._checkpointer.attempt is None:
            self._loggers.take_up(folders_of_unsaved(self._checkpointer.storage))

    def _agree(self, trainer: "pl.Trainer") -> None:
        """Let all ranks go on from the same checkpoint: each was offered the newest that is whole on its own host."""
        self._checkpointer.ranks  # noqa: B018 - found here, where all are
        was_offered = self._place_of(self._offered)
        if self._checkpointer.all_true(was_offered is None):
            return
        self._offered = self._checkpointer.agreed()
        self._begins_anew = self._offered is None
        agreed = self._place_of(self._offered)

        def chosen(path: Any) -> Any:
            follows = path is None if was_offered is None else path == was_offered
            # Who names another checkpoint, or none, means it; then each rank loads what it was told.
            return agreed if self._checkpointer.all_true(follows) else path

        private.choose_checkpoint(trainer, chosen)

    def _place_of(self, manifest: Manifest | None) -> str | None:
        return None if manifest is None else f"{self.dirpath.rstrip('/')}/{manifest.key}"

    def _load(self, path: str) -> dict[str, Any]:
        began = time.perf_counter()
        folder, _, key = path.rpartition("/")
        is_own = open_storage(folder).url == self._checkpointer.storage.url
        storage = self._checkpointer.storage if is_own else open_storage(folder)
        manifest = read_manifest(storage, key)
        if is_own:
            trees = self._checkpointer.read(manifest)
        else:
            ranks = self._checkpointer.ranks
            refuse_other_world(manifest, 1 if ranks is None else ranks.world_size)
            trees = read_state(storage, manifest, rank=0 if ranks is None else ranks.rank).decoded()
        if "lightning" not in trees:
            raise ResumeMismatch(
                f"{path} holds no Lightning training, only {', '.join(sorted(trees))}.",
                do="Resume it with the program that wrote it, or give this training a folder of its own.",
            )
        self._load_seconds = time.perf_counter() - began
        if is_own:
            self._resumed_step = manifest.step  # also where it was imported, and so lacks our part
        checkpoint: dict[str, Any] = trees["lightning"]
        return checkpoint

    def on_load_checkpoint(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", checkpoint: dict[str, Any]
    ) -> None:
        """Take our part of the checkpoint; a plain Lightning checkpoint has none and is resumed as Lightning does."""
        self._resumed = checkpoint.get("spotproof")
        if self._resumed is None or self._hooks is None:
            return
        self._resumed_step = checkpoint["global_step"]
        if trainer.world_size > 1:
            self._own_weights = checkpoint["state_dict"]
        private.take_over(trainer, self._resumed["found"])
        self._hooks.positions = private.saved_positions(checkpoint)
        self._hooks.validation_states = self._resumed["validation"]
        if self._resumed["between"] != "end":
            self._hooks.is_resuming = True
            if self._notice_hooks is not None:
                self._notice_hooks.owes_validation = self._resumed["between"] == "validation"
        else:
            self._hooks.rng_of_finished_run = self._resumed["rng"]
            self._hooks.skip_sanity_check()
        if self._loggers is not None:
            step = private.batches_that_stepped(checkpoint) + (self._resumed["between"] == "validation")
            self._loggers.follow(self._resumed["loggers"], step)

    def on_fit_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Become the writer of the folder, after the checkpoint was loaded and before anything is trained."""
        if self._resumed_step is None and self._checkpointer.attempt is None and not self._begins_anew:
            self._checkpointer.of_lead(self._refuse_to_overwrite)
        self._has_begun = True
        run = self._saves.run
        run.attributes, run.files = ChangedAttributes(trainer), KnownFiles(trainer)
        run.buckets = bucket_order(trainer.strategy.model)
        if isinstance(trainer.strategy.checkpoint_io, SpotCheckpointIO):
            trainer.strategy.checkpoint_io.files = run.files
        attempt = self._checkpointer.begin()
        if self._loggers is not None:
            if self._resumed_step is None and trainer.ckpt_path is None:
                self._loggers.begin_anew(os.environ.get(ENV_JOB_NAME))
            self._loggers.begin()
        if self._resumed is not None:
            run.files.load_state_dict(self._resumed["model_checkpoints"]["files"])
            if self._loggers is not None:
                self._loggers.restore(self._resumed["loggers"])
            if self._resumed["between"] == "end":
                # A training that was stopped early is complete, whatever epochs are left.
                trainer.should_stop = self._resumed["run"]["should_stop"]
        if self._loggers is not None:
            for kind, folder in self._loggers.folders():
                self._checkpointer.record(LoggerOpened(attempt=attempt, logger=kind, folder=folder))
            self._loggers.begin_uploads()
        self._departure.tell_deafness()
        if self._resumed_step is not None:
            self._checkpointer.record(Resumed(attempt=attempt, step=self._resumed_step, seconds=self._load_seconds))

    def _refuse_to_overwrite(self) -> None:
        found = self._checkpointer.latest()
        if found is not None:
            raise SpecError(
                f"{self.dirpath} holds checkpoints up to step {found.step}, but fit() would start at step 0.",
                why="Two runs in one folder would replace each other's checkpoints.",
                do="Pass ckpt_path=spot.latest() to fit() to go on, or give this run a folder of its own.",
            )

    # -- training ----------------------------------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Take the signals back from Lightning, which has its handlers by now."""
        self._departure.notice.hold()

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Say where training begins, and keep the signals for the safe points."""
        self._departure.notice.hold()
        self._progress.tell(trainer.global_step, trainer.current_epoch)
        if self._resumed is not None and self._resumed["between"] == "end":
            self._saves.run.restore_attributes(self._resumed)

    def _at_safe_point(self, trainer: "pl.Trainer") -> None:
        """Between two batches: nothing is half done, nothing of the next batch has been fetched."""
        assert self._waiting is not None
        if self._is_aside(trainer):
            return
        assert self._boundary is not None
        self._saves.batch_ended()
        self._begin_training(trainer)
        step = trainer.global_step
        self._num_batches += 1
        if self._num_batches == _BATCHES_WITHOUT_STEP and step == self._first_step:
            message = missing_steps(trainer, self._num_batches)
            if message is not None:
                self._warn(message)
        decision = self._boundary.reached(step)
        if decision.leaves:
            self._departure.leave(step, lambda: self._saves.save(trainer))
        if decision.saves and private.is_between_optimizer_steps(trainer):
            self._saves.save(trainer, may_defer=True)
        self._boundary.left(step)
        self._waiting.batch_follows()
        self._saves.batch_begins()

    def _is_aside(self, trainer: "pl.Trainer") -> bool:
        """Whether this is one of the small trainings by which a finder tries learning rates or batch sizes."""
        return self not in trainer.callbacks  # type: ignore[attr-defined]

    def _begin_training(self, trainer: "pl.Trainer") -> None:
        """Put everything where the resumed run stood, or make the first save; only once."""
        if self._has_trained:
            return
        assert self._hooks is not None
        assert self._waiting is not None
        self._has_trained = True
        self._num_batches, self._first_step = 0, trainer.global_step
        self._waiting.training_begins()
        self._hooks.positions = self._hooks.rng_of_finished_run = None
        self._saves.begin(trainer.global_step)
        self._progress.plan(planned_steps(trainer))
        for message in inexact_parts(trainer):
            self._warn(message)
        if self._resumed is not None:
            if self._resumed["between"] != "end":
                if self._resumed["between"] == "validation":
                    private.begin_reading_now(trainer)
                self._restore()
            self._resumed = None
        else:
            # At once, so that a state that can't be saved is refused before an hour of training depends on it, and so
            # that a kill in the first steps comes back to the same initial weights.
            self._saves.save(trainer, may_defer=True)

    def _restore(self) -> None:
        assert self._resumed is not None
        self._saves.run.restore(self._resumed, self._own_weights)
        self._own_weights = None

    def on_train_batch_end(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the step as soon as it is done; a save waits for the safe point."""
        self._progress.step_done(trainer.global_step, trainer.current_epoch)

    def on_validation_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Note the phase."""
        self._saves.batch_is_disturbed()
        self._enter(trainer, "validate")

    def on_validation_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Note the phase."""
        self._enter(trainer, "train")
        if self._waiting is not None:
            self._waiting.validation_ended()

    def _enter(self, trainer: "pl.Trainer", phase: str) -> None:
        if trainer.training or (trainer.validating and not trainer.sanity_checking):
            self._progress.enter(phase, trainer.global_step)

    # -- end ---------------------------------------------------------------------------------------------------------

    def _at_end(self, trainer: "pl.Trainer") -> None:
        """Training is complete and every hook has run: what is saved now is the result."""
        if self._is_aside(trainer):
            return
        step = trainer.global_step
        assert self._boundary is not None
        if self._boundary.settled(step).leaves:
            self._departure.leave(step, lambda: self._saves.save(trainer, between="end"), is_new=True)
        self._saves.save_end(trainer)
        if self._boundary.settled(step).leaves:
            self._departure.leave(step, None)
        self._departure.tell_end("finished", step)

    def on_exception(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", exception: BaseException) -> None:
        """Let a save under way become durable; what was trained since is lost, as in a kill."""
        if isinstance(exception, Woken):
            private.let_go_of_fetchers(trainer)
            self._departure.left_early(trainer.global_step)
        elif self._checkpointer.attempt is not None and not isinstance(exception, SystemExit):
            self._checkpointer.wait(ERROR_PATIENCE_SECONDS)
            self._departure.tell_end("error", trainer.global_step)
        self._detach(trainer)

    def teardown(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Leave the trainer and the process as they were."""
        if stage == "fit" and not self._has_begun:  # a Tuner's search, which ends here
            self._detach(trainer)
        elif stage == "fit":
            if self._resumed is not None and not self._has_trained:
                # Nothing was left to train: what follows fit() finds metrics and generators as training left them.
                self._restore()
            self._checkpointer.wait(ERROR_PATIENCE_SECONDS)
            self._departure.tell_end("finished", trainer.global_step)  # also if there was nothing left to train
            self._detach(trainer)

    def _detach(self, trainer: "pl.Trainer") -> None:
        self._departure.stop(private.handlers_to_restore(trainer))
        for hooks in (self._hooks, self._notice_hooks):
            if hooks is not None:
                hooks.remove()
        if self._saves.run.files is not None:
            self._saves.run.files.remove()
        private.search_again(trainer)
        private.forget_choice(trainer)
        self._hooks = self._notice_hooks = None

    def _warn(self, message: str) -> None:
        log.warning(message)
        self._checkpointer.record(Warned(attempt=self._checkpointer.begin(), message=message))
