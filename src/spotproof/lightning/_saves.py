"""The saves of one Lightning training: what they say about where it stands."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.interval import SaveSchedule
from spotproof.errors import UnsafeState
from spotproof.lightning import _private as private
from spotproof.lightning._loggers import logger_places
from spotproof.lightning._run import BeforeFetch, LightningRun
from spotproof.loop.saves import ScheduledSaves

__all__ = ["Saves"]


class Saves(ScheduledSaves):
    """Saves a Lightning training through its checkpointer, where its state is at rest."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        schedule: SaveSchedule,
        warn: Callable[[str], None],
        *,
        overhead_budget: float,
    ) -> None:
        super().__init__(checkpointer, schedule, warn, overhead_budget=overhead_budget)
        self.run = LightningRun(warn)
        checkpointer.register("lightning", self.run)

    def save(
        self,
        trainer: "pl.Trainer",
        *,
        between: str = "batches",
        may_defer: bool = False,
        before_fetch: BeforeFetch | None = None,
    ) -> None:
        """Save the last completed step, as :meth:`ScheduledSaves.save_step` does.

        Args:
            trainer: The training.
            between: Where it stands: between ``batches``, before a ``validation``, at the ``end``.
            may_defer: Do not stop for making buffers; they are made beside the training, and the save is due again.
            before_fetch: If a fetch was interrupted, how things were before it.
        """
        self.run.between, self.run.before_fetch = between, before_fetch
        try:
            self.save_step(trainer.global_step, meta=_meta(trainer, between), may_defer=may_defer)
        finally:
            self.run.before_fetch = None

    def save_end(self, trainer: "pl.Trainer") -> None:
        """Save the complete training, as :meth:`ScheduledSaves.save_last` does."""
        self.run.between, self.run.before_fetch = "end", None
        self.save_last(trainer.global_step, meta=_meta(trainer, "end"))

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
        "loggers": logger_places(trainer),
        # What the step itself logged is there already when validation begins.
        "logged_steps": private.logged_steps(trainer) + (between == "validation"),
    }
