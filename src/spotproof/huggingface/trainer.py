"""SpotTrainer: Hugging Face's Trainer, resumed exactly where the newest whole checkpoint was made."""

import logging
from collections.abc import Iterator
from typing import Any

from transformers import Trainer

from spotproof.checkpoint import resumable_loader
from spotproof.errors import ResumeMismatch, SpecError
from spotproof.events import Resumed
from spotproof.huggingface import _private as private
from spotproof.huggingface._fetches import Fetches
from spotproof.huggingface._run import TrainerRun
from spotproof.loop import SpotLoop

__all__ = ["SpotTrainer", "SpotTrainerMixin"]

log = logging.getLogger(__name__)


class SpotTrainerMixin:
    """Put in front of a Trainer class: saves between two optimizer steps, in the background, and resumes there.

    The Trainer comes to rest at one place only: before it fetches the batches of the next step. There the logs, the
    evaluation and the saves of the step before are done. So that is where saves are made and where a resumed run is
    put where the interrupted one stood; its own ``resume_from_checkpoint`` is not needed.

    Example::

        class MyTrainer(SpotTrainerMixin, Seq2SeqTrainer): ...


        trainer = MyTrainer(model=model, args=args, train_dataset=data, spot=SpotLoop("checkpoints"))
        trainer.train()
    """

    # These belong to the Trainer; named here for the type checker.
    args: Any
    state: Any
    accelerator: Any

    def __init__(self, *args: Any, spot: SpotLoop | None = None, **kwargs: Any) -> None:
        """Take the Trainer's own arguments.

        Args:
            args: The Trainer's.
            spot: Where and when to save; by default ``SpotLoop()``.
            kwargs: The Trainer's.
        """
        super().__init__(*args, **kwargs)
        self.spot = spot if spot is not None else SpotLoop()
        self.fetches: Any = None
        """The training data, with a position; from the beginning of ``train()``."""
        self._run = TrainerRun(self)
        self._pending: dict[str, Any] | None = None
        """The state to go on from, until the Trainer has everything that it is to be set in."""
        self._has_begun = False

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """Train, from the newest whole checkpoint if there is one; return what the Trainer does.

        Raises:
            SpecError: What is asked for can't be resumed exactly.
            SystemExit: After a notice, with the exit code 143.
        """
        self._check(resume_from_checkpoint, kwargs)
        self.spot.register("trainer", self._run)
        with self.spot:
            return super().train(**kwargs)  # type: ignore[misc]

    def _check(self, resume_from_checkpoint: Any, kwargs: dict[str, Any]) -> None:
        if resume_from_checkpoint:
            raise SpecError(
                f"train(resume_from_checkpoint={resume_from_checkpoint!r}) is not for {type(self).__name__}.",
                why="It goes on from its own checkpoints by itself.",
                do="Call train() without it.",
            )
        if self._has_begun:
            raise SpecError(
                "train() was called a second time.",
                why="It would go on from the end of the first.",
                do="Make another trainer, with a folder of its own.",
            )
        num_processes = max(self.args.world_size, self.args.n_gpu)
        plugins = [name for name in ("deepspeed", "fsdp") if getattr(self, f"is_{name}_enabled", False)]
        if num_processes > 1 or plugins:
            raise SpecError(
                f"{type(self).__name__} works with one process and one device so far; here are "
                f"{', '.join([f'{num_processes} devices', *plugins])}.",
                do="Use one device (CUDA_VISIBLE_DEVICES=0, say).",
            )
        if self.args.auto_find_batch_size or kwargs.get("trial") is not None:
            raise SpecError(
                "auto_find_batch_size and hyperparameter searches can't be resumed exactly.",
                why="They begin the training over and over.",
                do="Find them first, with the plain Trainer; then train with what was found.",
            )
        for name in self._run.forgotten_callbacks:
            log.warning(
                "%s is a callback whose attributes are in no checkpoint: after a resume they are as at the start. "
                "Give it state_dict and load_state_dict, or let it inherit ExportableState.",
                name,
            )

        collator = self._run.collator_with_generators
        if collator is not None and self.args.dataloader_num_workers > 0:
            log.warning(
                "%s has random-number generators of its own, which are in no checkpoint while loader workers use it: "
                "after a resume within an epoch what it draws differs. Make it without a seed (it then draws from "
                "torch's generator), or use dataloader_num_workers=0.",
                collator,
            )

    # -- where the Trainer is hooked into ----------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """Return the Trainer's loader, with a position."""
        loader = super().get_train_dataloader()  # type: ignore[misc]
        if not private.is_prepared(loader):
            self.fetches = Fetches(loader, reads_ahead=False)
            return self.fetches
        self.fetches = Fetches(loader.base_dataloader, reads_ahead=True)
        private.set_base_loader(loader, self.fetches)
        return loader

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Return the Trainer's loader; with a position if its workers persist from one evaluation to the next."""
        loader = super().get_eval_dataloader(*args, **kwargs)  # type: ignore[misc]
        for name, kept in private.kept_eval_loaders(self).items():
            if kept is loader and private.is_prepared(loader):
                base = resumable_loader(loader.base_dataloader)
                if base is not loader.base_dataloader:
                    private.set_base_loader(loader, base)
                    self._run.add_eval_loader(name, base)
        return loader

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, *args: Any
    ) -> tuple[int, int]:
        begin: tuple[int, int] = super()._init_training_state(  # type: ignore[misc]
            max_steps, num_update_steps_per_epoch, num_train_epochs, *args
        )
        checkpointer = self.spot.checkpointer
        manifest = checkpointer.latest()
        if manifest is None:
            return begin
        trees = checkpointer.read(manifest)
        if "trainer" not in trees:
            raise ResumeMismatch(
                f"{manifest.key} holds no training of a {type(self).__name__}, only {', '.join(sorted(trees))}.",
                do="Resume it with the program that wrote it, or give this training a folder of its own.",
            )
        self._pending = trees["trainer"]
        loop = self._pending["loop"]
        if loop["is_at_end"]:
            if manifest.step < max_steps:
                log.warning(
                    "The training in %s has ended at step %d; the steps to %d are not trained. To train on, begin with "
                    "its model in another folder.",
                    self.spot.dirpath,
                    manifest.step,
                    max_steps,
                )
            return num_train_epochs, 0
        return loop["epoch"], loop["update_step"] * self.args.gradient_accumulation_steps

    def _run_epoch(self, **kwargs: Any) -> None:
        self._run.epoch, self._run.update_step = kwargs["epoch"], 0
        if self._pending is None:
            super()._run_epoch(**{**kwargs, "resume_from_checkpoint": None})  # type: ignore[misc]
            return
        with private.without_skipping():
            super()._run_epoch(**{**kwargs, "resume_from_checkpoint": self.spot.dirpath})  # type: ignore[misc]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Do nothing: the generators are set with everything else."""

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        """Save if it is due, and return the batches of the next step."""
        if self._pending is not None:
            self._restore()
        if not self._has_begun:
            self._begin()
        else:
            self.spot.step_done(self.state.global_step, epoch=self._run.epoch)
        batches = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        self._run.update_step += 1
        return batches

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as the Trainer does; that it takes time is not held against the step."""
        self.spot.disturbed()
        return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    def _evaluate(self, trial: Any, ignore_keys: Any, skip_scheduler: bool = False) -> Any:
        if skip_scheduler and self._pending is not None:
            return {}  # eval_on_start: the run that is resumed has done it
        return super()._evaluate(trial, ignore_keys, skip_scheduler)  # type: ignore[misc]

    def _finalize_training(self, *args: Any) -> Any:
        if self._pending is not None:
            self._restore()
        if not self._has_begun:
            self._begin()
        self._run.is_at_end = True
        # Before the Trainer ends: should that be interrupted, it is done again.
        self.spot.end(self.state.global_step, epoch=self._run.epoch)
        return super()._finalize_training(*args)  # type: ignore[misc]

    def _restore(self) -> None:
        pending, self._pending = self._pending, None
        assert pending is not None
        self._run.load_state_dict(pending)

    def _begin(self) -> None:
        self._has_begun = True
        step = self.spot.begin_restored(total_steps=self.state.max_steps if self.state.max_steps > 0 else None)
        kind = self.fetches.without_position
        if kind is not None:
            self.spot.warn(
                f"The position in the training data ({kind}) can't be saved: a resume within an epoch reads it again "
                "from the beginning of the epoch and drops what was trained on. That takes time, and is exact only if "
                f"the same items come each time. Give {kind} state_dict and load_state_dict, or use a map-style "
                "dataset."
            )
        manifest = self.spot.checkpointer.resumed_from
        if manifest is not None:
            attempt = self.spot.checkpointer.begin()
            self.spot.checkpointer.record(Resumed(attempt=attempt, step=step, seconds=0.0))


class SpotTrainer(SpotTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer, with :class:`SpotTrainerMixin`."""
