"""The saves of one training: when they are due, what they say about it, and what happens if one is refused."""

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.interval import SaveSchedule
from spotproof.checkpoint.journal import read_history
from spotproof.checkpoint.tuning import IntervalTuner
from spotproof.errors import UnsafeState
from spotproof.events import IntervalTuned
from spotproof.lightning import _private as private
from spotproof.lightning._run import BeforeFetch, LightningRun, logger_versions

__all__ = ["Saves"]

log = logging.getLogger(__name__)


class Saves:
    """Saves a training through its checkpointer, where its state is at rest."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        schedule: SaveSchedule,
        warn: Callable[[str], None],
        *,
        overhead_budget: float,
    ) -> None:
        self._checkpointer = checkpointer
        self._schedule = schedule
        self._warn = warn
        self._budget = overhead_budget
        self._tuner: IntervalTuner | None = None
        self._num_saves = 0
        self._began_at = 0.0
        self._batch_began: float | None = None
        self._was_writing = False
        self._step_being_written: int | None = None
        self._unsaved_stall = 0.0
        """What tries took that saved nothing."""
        self.run = LightningRun()
        checkpointer.register("lightning", self.run)

    def begin(self, step: int) -> None:
        """Count the time and the steps to the next save from here."""
        self._began_at = time.monotonic()
        self._schedule.saved(step, self._began_at)
        self._step_being_written = self._batch_began = None
        if self._schedule.every_n_seconds == "auto":
            history = read_history(self._checkpointer.storage, before=self._checkpointer.begin())
            self._tuner = IntervalTuner(self._budget, uptimes=history.uptimes, costs=history.costs)
            self._tune(self._tuner)

    def is_due(self, step: int) -> bool:
        """Whether a save should be made now."""
        is_due = self._schedule.is_due(step, time.monotonic()) or self._checkpointer.must_repeat
        if self._tuner is not None and self._tuner.wants_idle_step and self._was_writing:
            return False
        return is_due and step != self._schedule.last_step

    # -- what saves cost ---------------------------------------------------------------------------------------------

    def batch_ended(self) -> None:
        """Take note of how long the batch took, and of a save that has become durable meanwhile. Costs microseconds."""
        tuner, writer = self._tuner, self._checkpointer.writer
        if tuner is None or writer is None:
            return
        if self._step_being_written is not None and not writer.is_busy:
            if writer.last_committed_step == self._step_being_written and writer.last_durable_seconds is not None:
                tuner.committed(writer.last_durable_seconds)
            self._step_being_written = None
        began, self._batch_began = self._batch_began, None
        if began is not None and tuner.step(time.perf_counter() - began, is_writing=self._was_writing):
            self._tune(tuner)

    def batch_begins(self) -> None:
        """From here to :meth:`batch_ended` it is the training that takes its time."""
        writer = self._checkpointer.writer
        self._was_writing = writer is not None and writer.is_busy
        self._batch_began = time.perf_counter()

    def batch_is_disturbed(self) -> None:
        """Say nothing about how long this batch took: a validation came in between."""
        self._batch_began = None

    def _tune(self, tuner: IntervalTuner) -> None:
        choice = tuner.decide(time.monotonic() - self._began_at)
        self._schedule.auto_seconds = tuner.seconds
        if choice is None:
            return
        log.info(choice.reason)
        self._checkpointer.record(
            IntervalTuned(
                attempt=self._checkpointer.begin(),
                seconds=round(choice.seconds, 6),
                bound=choice.bound,
                optimum_seconds=round(choice.optimum_seconds, 6),
                **{name: round(seconds, 6) for name, seconds in dataclasses.asdict(choice.cost).items()},
                mean_uptime_seconds=round(choice.uptime.seconds, 3),
                interruptions=choice.uptime.interruptions,
                budget=choice.budget,
                reason=choice.reason,
            )
        )

    # -- saving ------------------------------------------------------------------------------------------------------

    def save(
        self,
        trainer: "pl.Trainer",
        *,
        between: str = "batches",
        wait: bool = False,
        may_defer: bool = False,
        before_fetch: BeforeFetch | None = None,
    ) -> None:
        """Save the last completed step.

        Args:
            trainer: The training.
            between: Where it stands: between ``batches``, before a ``validation``, at the ``end``.
            wait: Return only when it is durable.
            may_defer: Do not stop for making buffers; they are made beside the training, and the save is due again.
            before_fetch: If a fetch was interrupted, how things were before it.

        Raises:
            UnsafeState: The state could not be read back safely, and not by accident: it is one of the first saves.
        """
        step, now, began = trainer.global_step, time.monotonic(), time.perf_counter()
        self.run.between, self.run.before_fetch = between, before_fetch
        try:
            is_saved = self._checkpointer.save(step, meta=_meta(trainer, between), wait=wait, may_defer=may_defer)
        except UnsafeState as err:
            if self._num_saves < 2:
                raise
            # Training has come far on states that could be saved: it goes on, and the newest checkpoint stays.
            self._schedule.saved(step, now)
            self._warn(f"Step {step} is not saved. {err}")
            return
        finally:
            self.run.before_fetch = None
        self._unsaved_stall += time.perf_counter() - began
        if is_saved:
            self._num_saves += 1
            if self._tuner is not None and not wait:
                if self._tuner.is_undecided:
                    self._tune(self._tuner)
                self._tuner.saved(self._unsaved_stall, now - self._schedule.last_at, now - self._began_at)
                self._schedule.auto_seconds = self._tuner.seconds
                self._step_being_written = step
            self._unsaved_stall = 0.0
            self._schedule.saved(step, now)

    def hold(self, trainer: "pl.Trainer", *, between: str) -> bool:
        """Copy the last completed step without writing it; return whether that could be done."""
        self.run.between = between
        try:
            return self._checkpointer.hold(trainer.global_step, meta=_meta(trainer, between))
        except UnsafeState:
            return False  # the next save says so


def _meta(trainer: "pl.Trainer", between: str) -> dict[str, Any]:
    return {
        "epoch": trainer.current_epoch,
        "between": between,
        "loggers": logger_versions(trainer),
        # What the step itself logged is there already when validation begins.
        "logged_steps": private.logged_steps(trainer) + (between == "validation"),
    }
