"""The saves of one training: when they are due, what they cost, and what happens if one is refused."""

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.interval import SaveSchedule
from spotproof.checkpoint.journal import read_history
from spotproof.checkpoint.tuning import IntervalTuner
from spotproof.errors import UnsafeState
from spotproof.events import IntervalTuned
from spotproof.storage import StorageUnavailable

__all__ = ["ERROR_PATIENCE_SECONDS", "ScheduledSaves"]

log = logging.getLogger(__name__)

END_PATIENCE_SECONDS = 600.0
_END_PATIENCE_FACTOR = 10
"""The end of a training waits for its last save, which holds its result, ten times as long as the save before took, and
ten minutes at least."""
ERROR_PATIENCE_SECONDS = 60.0
"""The end with an error waits so long for the save under way: a storage that hangs must not keep the error back."""


class ScheduledSaves:
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

    def begin(self, step: int) -> None:
        """Count the time and the steps to the next save from here."""
        self._began_at = time.monotonic()
        self._schedule.saved(step, self._began_at)
        self._step_being_written = self._batch_began = None
        if self._schedule.every_n_seconds == "auto" and self._checkpointer.is_lead:
            history = read_history(self._checkpointer.storage, before=self._checkpointer.begin())
            self._tuner = IntervalTuner(self._budget, uptimes=history.uptimes, costs=history.costs)
            self._tune(self._tuner)

    def is_due(self, step: int) -> bool:
        """Whether a save should be made now."""
        if self.is_held_off:
            return False
        is_due = self._schedule.is_due(step, time.monotonic()) or self._checkpointer.must_repeat
        if self._tuner is not None and self._tuner.wants_idle_step and self._was_writing:
            return False
        return is_due and not self.is_saved(step)

    def is_due_by_steps(self, step: int) -> bool:
        """Whether the number of steps alone makes a save due; in all processes of a training the same."""
        return self._schedule.is_due_by_steps(step)

    def is_saved(self, step: int) -> bool:
        """Whether *step* has been saved, or need not be."""
        return step == self._schedule.last_step

    @property
    def is_held_off(self) -> bool:
        """Whether no save is made for now, because the last one failed."""
        writer = self._checkpointer.writer
        return writer is not None and time.monotonic() < writer.retry_at

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

    def save_step(
        self, step: int, *, meta: dict[str, Any] | None = None, may_defer: bool = False, is_last: bool = False
    ) -> None:
        """Save the last completed step, *step*.

        Args:
            step: Optimizer steps that are complete.
            meta: Small facts for people.
            may_defer: Do not stop for making buffers; they are made beside the training, and the save is due again.
            is_last: Whether training is complete, so that there is nothing left to tune.

        Raises:
            UnsafeState: The state could not be read back safely, and not by accident: it is one of the first saves.
        """
        now, began = time.monotonic(), time.perf_counter()
        try:
            is_saved = self._checkpointer.save(step, meta=meta, may_defer=may_defer)
        except UnsafeState as err:
            if self._num_saves < 2:
                raise
            # Training has come far on states that could be saved: it goes on, and the newest checkpoint stays.
            self._schedule.saved(step, now)
            self._warn(f"Step {step} is not saved. {err}")
            return
        self._unsaved_stall += time.perf_counter() - began
        if is_saved:
            self._num_saves += 1
            if self._tuner is not None and not is_last:
                if self._tuner.is_undecided:
                    self._tune(self._tuner)
                self._tuner.saved(self._unsaved_stall, now - self._schedule.last_at, now - self._began_at)
                self._schedule.auto_seconds = self._tuner.seconds
                self._step_being_written = step
            self._unsaved_stall = 0.0
            self._schedule.saved(step, now)

    def save_last(self, step: int, *, meta: dict[str, Any] | None = None) -> None:
        """Save the complete training; return when that is durable, can't be done, or hangs for too long, and say so.

        A disk that is full stays full, but an object store that does not answer is asked again.

        Raises:
            CheckpointConflict: A newer attempt writes to the same place.
        """
        checkpointer = self._checkpointer
        checkpointer.begin()
        writer = checkpointer.writer
        assert writer is not None
        patience_seconds = max(END_PATIENCE_SECONDS, _END_PATIENCE_FACTOR * (writer.last_durable_seconds or 0.0))
        deadline = time.monotonic() + patience_seconds
        while checkpointer.all_true(checkpointer.wait(max(0.0, deadline - time.monotonic()))):
            self.save_step(step, meta=meta, is_last=True)
            is_through = checkpointer.all_true(checkpointer.wait(max(0.0, deadline - time.monotonic())))
            if is_through:
                checkpointer.raise_conflict()
            if not is_through or not checkpointer.all_true(time.monotonic() < deadline):
                break
            if isinstance(writer.failure, StorageUnavailable):
                time.sleep(1.0)
            elif not writer.must_repeat:
                break
        self._tell_if_not_saved(step, writer.last_committed_step)

    def _tell_if_not_saved(self, step: int, newest: int | None) -> None:
        if newest != step:
            kept = "There is no checkpoint." if newest is None else f"The newest checkpoint is that of step {newest}."
            self._warn(
                f"Training is complete, but its last step, {step}, could not be saved to "
                f"{self._checkpointer.storage.url}. {kept} Keep the result by other means before this process ends."
            )
