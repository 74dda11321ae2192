"""SpotCheckpoint: the one line that makes a Lightning training survive a kill at any instant, bit for bit."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from spotproof.checkpoint import Checkpointer, Manifest, RngState, read_manifest
from spotproof.checkpoint.interval import SaveSchedule
from spotproof.checkpoint.restore import read_state
from spotproof.checkpoint.tuning import DEFAULT_OVERHEAD_BUDGET, checked_budget
from spotproof.errors import ResumeMismatch, SpecError
from spotproof.events import Resumed, Warned
from spotproof.lightning import _private as private
from spotproof.lightning._attributes import ChangedAttributes
from spotproof.lightning._departure import Departure
from spotproof.lightning._io import SpotCheckpointIO
from spotproof.lightning._notice import NoticeSource, Woken
from spotproof.lightning._place import default_dirpath
from spotproof.lightning._progress import ProgressReport
from spotproof.lightning._saves import Saves
from spotproof.lightning._waiting import Waiting
from spotproof.storage import open_storage

__all__ = ["SpotCheckpoint"]

log = logging.getLogger(__name__)


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
            dirpath: Folder for checkpoints; by default ``SM_CHECKPOINT_DIR``, else what SageMaker's
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
        self.dirpath = os.fspath(dirpath) if dirpath is not None else default_dirpath(os.environ)
        schedule = SaveSchedule(every_n_steps=every_n_steps, every_n_seconds=every_n_seconds)
        config = {
            "dirpath": self.dirpath,
            "every_n_steps": every_n_steps,
            "every_n_seconds": every_n_seconds,
            "overhead_budget": checked_budget(overhead_budget),
        }
        self._checkpointer = Checkpointer(self.dirpath, keep=keep, config=config)
        self._departure = Departure(self._checkpointer, notices=notices, grace_seconds=grace_seconds, requeue=requeue)
        self._saves = Saves(self._checkpointer, schedule, self._warn, overhead_budget=overhead_budget)
        self._progress = ProgressReport(self._checkpointer)
        self._hooks: private.FitHooks | None = None
        self._notice_hooks: private.NoticeHooks | None = None
        self._waiting: Waiting | None = None
        self._resumed: dict[str, Any] | None = None
        self._resumed_step: int | None = None
        self._offered: Manifest | None = None
        self._loggers_continue = False
        self._load_seconds = 0.0
        self._has_trained = False

    def latest(self) -> str | None:
        """Return the newest checkpoint that verifies, for ``fit(ckpt_path=…)``, or None if there is none.

        Checkpoints that are cut short or altered are passed over for the next older one, with a warning.
        """
        manifest = self._offered = self._checkpointer.latest()
        if manifest is None:
            return None
        return f"{self.dirpath.rstrip('/')}/{manifest.key}"

    # -- set-up ------------------------------------------------------------------------------------------------------

    def setup(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Hook into the fit loop; Lightning calls this before it loads the checkpoint."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise SpecError(
                f"SpotCheckpoint works in one process so far; this trainer has {trainer.world_size}.",
                do="Use devices=1, num_nodes=1.",
            )
        strategy = trainer.strategy
        if not isinstance(strategy.checkpoint_io, SpotCheckpointIO):
            strategy.checkpoint_io = SpotCheckpointIO(strategy.checkpoint_io, self._load)
        self._hooks = private.FitHooks(
            trainer,
            before_batch=lambda: self._at_safe_point(trainer),
            after_training=lambda: self._at_end(trainer),
            on_order_mismatch=self._warn,
        )
        self._saves.run.trainer = trainer
        self._has_trained = False
        self._resumed = None
        self._departure.start()
        self._waiting = waiting = Waiting(trainer, self._checkpointer, self._departure, self._saves)
        self._notice_hooks = private.NoticeHooks(
            trainer,
            before_fetch=waiting.fetch_begins,
            after_fetch=waiting.fetch_ended,
            before_validation=waiting.validation_follows,
            before_owed_validation=lambda: self._begin_training(trainer),
            on_woken=waiting.woken,
            wake=Woken,
        )
        self._loggers_continue = False
        if self._offered is not None:
            # Before other callbacks look where the logger writes: ModelCheckpoint's folder follows it.
            meta = self._offered.meta
            self._continue_loggers(trainer, meta.get("loggers", []), meta.get("logged_steps", 0))

    def _load(self, path: str) -> dict[str, Any]:
        began = time.perf_counter()
        folder, _, key = path.rpartition("/")
        is_own = open_storage(folder).url == self._checkpointer.storage.url
        storage = self._checkpointer.storage if is_own else open_storage(folder)
        manifest = read_manifest(storage, key)
        trees = self._checkpointer.read(manifest) if is_own else read_state(storage, manifest).decoded()
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
        self._hooks.loader_states = private.loader_states(checkpoint)
        if self._resumed["between"] != "end":
            self._hooks.is_resuming = True
            if self._notice_hooks is not None:
                self._notice_hooks.owes_validation = self._resumed["between"] == "validation"
        else:
            self._hooks.rng_of_finished_run = self._resumed["rng"]
        self._continue_loggers(
            trainer,
            self._resumed["loggers"],
            private.batches_that_stepped(checkpoint) + (self._resumed["between"] == "validation"),
        )

    def _continue_loggers(self, trainer: "pl.Trainer", versions: list[Any], step: int) -> None:
        if self._loggers_continue:
            return
        self._loggers_continue = True
        continued = 0
        for logger, version in zip(trainer.loggers, versions, strict=False):
            if isinstance(logger, TensorBoardLogger) and version is not None and trainer.is_global_zero:
                private.continue_tensorboard(logger, version, step)
                continued += 1
        if continued == len(trainer.loggers) and step > 0:
            # They have them already; written again, TensorBoard would show a second point at step 0.
            trainer.enable_autolog_hparams = False

    def on_fit_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Become the writer of the folder, after the checkpoint was loaded and before anything is trained."""
        if self._resumed_step is None and self._checkpointer.attempt is None:
            self._refuse_to_overwrite()
        self._saves.run.attributes = ChangedAttributes(trainer)
        attempt = self._checkpointer.begin()
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
        self._progress.tell(trainer)
        if self._resumed is not None and self._resumed["between"] == "end":
            self._restore_attributes()

    def _at_safe_point(self, trainer: "pl.Trainer") -> None:
        """Between two batches: nothing is half done, nothing of the next batch has been fetched."""
        assert self._waiting is not None
        self._saves.batch_ended()
        self._begin_training(trainer)
        step = trainer.global_step
        if self._departure.is_wanted:
            self._departure.leave(step, lambda: self._saves.save(trainer))
        if private.is_between_optimizer_steps(trainer) and self._saves.is_due(step):
            self._saves.save(trainer, may_defer=True)
        self._waiting.batch_follows()
        self._saves.batch_begins()

    def _begin_training(self, trainer: "pl.Trainer") -> None:
        """Put everything where the resumed run stood, or make the first save; only once."""
        if self._has_trained:
            return
        assert self._hooks is not None
        assert self._waiting is not None
        self._has_trained = True
        self._waiting.training_begins()
        self._hooks.loader_states = self._hooks.rng_of_finished_run = None
        self._saves.begin(trainer.global_step)
        for kind in private.unresumable_loaders(trainer):
            self._warn(
                f"The position in the training data ({kind}) can't be saved, so a resume within an epoch will not be "
                "exact. Use a map-style dataset with a DataLoader, or a loader with state_dict and load_state_dict."
            )
        if self._resumed is not None:
            if self._resumed["between"] != "end":
                if self._resumed["between"] == "validation":
                    private.begin_reading_now(trainer)
                private.restore_run_state(trainer, self._resumed["run"])
                self._restore_attributes()
                RngState().load_state_dict(self._resumed["rng"])
            self._resumed = None
        else:
            # At once, so that a state that can't be saved is refused before an hour of training depends on it, and so
            # that a kill in the first steps comes back to the same initial weights.
            self._saves.save(trainer, may_defer=True)

    def _restore_attributes(self) -> None:
        attributes = self._saves.run.attributes
        if self._resumed is not None and attributes is not None:
            attributes.load_state_dict(self._resumed["attributes"])

    def on_train_batch_end(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the step as soon as it is done; a save waits for the safe point."""
        self._progress.batch_done(trainer)

    def on_validation_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Note the phase."""
        self._saves.batch_is_disturbed()
        self._progress.enter(trainer, "validate")

    def on_validation_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Note the phase."""
        self._progress.enter(trainer, "train")
        if self._waiting is not None:
            self._waiting.validation_ended()

    # -- end ---------------------------------------------------------------------------------------------------------

    def _at_end(self, trainer: "pl.Trainer") -> None:
        """Training is complete and every hook has run: what is saved now is the result."""
        step = trainer.global_step
        if self._departure.is_wanted:
            self._departure.leave(step, lambda: self._saves.save(trainer, between="end"), is_new=True)
        self._saves.save(trainer, between="end", wait=True)
        if self._departure.is_wanted:
            self._departure.leave(step, None)
        self._departure.tell_end("finished", step)

    def on_exception(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", exception: BaseException) -> None:
        """Let a save under way become durable; what was trained since is lost, as in a kill."""
        if isinstance(exception, Woken):
            self._departure.left_early(trainer.global_step)
        elif self._checkpointer.attempt is not None and not isinstance(exception, SystemExit):
            self._checkpointer.wait()
            self._departure.tell_end("error", trainer.global_step)
        self._detach(trainer)

    def teardown(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Leave the trainer and the process as they were."""
        if stage == "fit":
            if self._resumed is not None and not self._has_trained:
                # Nothing was left to train: what follows fit() finds metrics and generators as training left them.
                private.restore_run_state(trainer, self._resumed["run"])
                self._restore_attributes()
                RngState().load_state_dict(self._resumed["rng"])
            self._checkpointer.close()
            self._departure.tell_end("finished", trainer.global_step)  # also if there was nothing left to train
            self._detach(trainer)

    def _detach(self, trainer: "pl.Trainer") -> None:
        self._departure.stop(private.handlers_to_restore(trainer))
        for hooks in (self._hooks, self._notice_hooks):
            if hooks is not None:
                hooks.remove()
        self._hooks = self._notice_hooks = None

    def _warn(self, message: str) -> None:
        log.warning(message)
        self._checkpointer.record(Warned(attempt=self._checkpointer.begin(), message=message))
