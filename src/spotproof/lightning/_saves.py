"""The saves of one training: when they are due, what they say about it, and what happens if one is refused."""

import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.interval import DEFAULT_MEAN_UPTIME_SECONDS, SaveSchedule, auto_interval_seconds
from spotproof.errors import UnsafeState
from spotproof.lightning import _private as private
from spotproof.lightning._run import BeforeFetch, LightningRun, logger_versions

__all__ = ["Saves"]


class Saves:
    """Saves a training through its checkpointer, where its state is at rest."""

    def __init__(self, checkpointer: Checkpointer, schedule: SaveSchedule, warn: Callable[[str], None]) -> None:
        self._checkpointer = checkpointer
        self._schedule = schedule
        self._warn = warn
        self._num_saves = 0
        self.mean_uptime_seconds = DEFAULT_MEAN_UPTIME_SECONDS
        self.run = LightningRun()
        checkpointer.register("lightning", self.run)

    def begin(self, step: int) -> None:
        """Count the time and the steps to the next save from here."""
        self._schedule.saved(step, time.monotonic())

    def is_due(self, step: int) -> bool:
        """Whether a save should be made now."""
        is_due = self._schedule.is_due(step, time.monotonic()) or self._checkpointer.must_repeat
        return is_due and step != self._schedule.last_step

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
        if is_saved:
            self._num_saves += 1
            stall = time.perf_counter() - began
            self._schedule.saved(step, now)
            writer = self._checkpointer.writer
            if writer is not None and writer.last_durable_seconds is not None and not wait:
                self._schedule.auto_seconds = auto_interval_seconds(
                    stall, writer.last_durable_seconds, self.mean_uptime_seconds
                )

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
