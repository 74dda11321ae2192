"""What a training tells while it runs: steps and phases, as events and as lines of the job's log."""

import math
import os
import time

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from spotproof.checkpoint import Checkpointer
from spotproof.contract import ENV_JOB_NAME, ENV_PROGRESS_SECONDS
from spotproof.events import PhaseEntered, Progress, progress_line

__all__ = ["ProgressReport"]


class ProgressReport:
    """Tells each completed step, at most once a second unless the platform asks for more."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._checkpointer = checkpointer
        self._step = -1
        self._printed_at = -math.inf

    def batch_done(self, trainer: "pl.Trainer") -> None:
        """Tell the step if this batch completed one."""
        if trainer.global_step != self._step:
            self.tell(trainer)

    @rank_zero_only
    def tell(self, trainer: "pl.Trainer") -> None:
        """Tell where the training stands."""
        self._step = trainer.global_step
        wanted = os.environ.get(ENV_PROGRESS_SECONDS)
        now = time.monotonic()
        if now - self._printed_at < (float(wanted) if wanted else 1.0):
            return
        self._printed_at = now
        event = Progress(attempt=self._checkpointer.begin(), step=trainer.global_step, epoch=trainer.current_epoch)
        self._checkpointer.record(event)
        if wanted or ENV_JOB_NAME in os.environ:
            # The platform reads this as a metric, and the log outlives the machine.
            print(progress_line(event), flush=True)  # noqa: T201

    def enter(self, trainer: "pl.Trainer", phase: str) -> None:
        """Tell that another phase of the training begins."""
        if trainer.training or (trainer.validating and not trainer.sanity_checking):
            attempt = self._checkpointer.attempt
            if attempt is not None:
                self._checkpointer.record(PhaseEntered(attempt=attempt, phase=phase, step=trainer.global_step))
