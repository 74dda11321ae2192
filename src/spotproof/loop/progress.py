"""What a training tells while it runs: steps and phases, as events and as lines of the job's log."""

import math
import os
import time

from spotproof.checkpoint import Checkpointer
from spotproof.contract import ENV_JOB_NAME, ENV_PROGRESS_SECONDS
from spotproof.events import PhaseEntered, Progress, StepsPlanned, progress_line

__all__ = ["ProgressReport"]


class ProgressReport:
    """Tells each completed step, at most once a second unless the platform asks for more."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._checkpointer = checkpointer
        self._step = -1
        self._printed_at = -math.inf

    def step_done(self, step: int, epoch: int) -> None:
        """Tell the step if it was not told yet."""
        if step != self._step:
            self.tell(step, epoch)

    def tell(self, step: int, epoch: int) -> None:
        """Tell where the training stands; of several processes one does."""
        self._step = step
        if not self._checkpointer.is_lead:
            return
        wanted = os.environ.get(ENV_PROGRESS_SECONDS)
        now = time.monotonic()
        if now - self._printed_at < (float(wanted) if wanted else 1.0):
            return
        self._printed_at = now
        event = Progress(attempt=self._checkpointer.begin(), step=step, epoch=epoch)
        self._checkpointer.record(event)
        if wanted or ENV_JOB_NAME in os.environ:
            # The platform reads this as a metric, and the log outlives the machine.
            print(progress_line(event), flush=True)  # noqa: T201

    def plan(self, total_steps: int | None) -> None:
        """Tell after which step the training will be done; None if it does not say so beforehand."""
        attempt = self._checkpointer.attempt
        if total_steps is not None and attempt is not None and self._checkpointer.is_lead:
            self._checkpointer.record(StepsPlanned(attempt=attempt, total_steps=total_steps))

    def enter(self, phase: str, step: int) -> None:
        """Tell that another phase of the training begins."""
        attempt = self._checkpointer.attempt
        if attempt is not None and self._checkpointer.is_lead:
            self._checkpointer.record(PhaseEntered(attempt=attempt, phase=phase, step=step))
