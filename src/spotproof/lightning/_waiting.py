"""What a notice finds between two safe points: a training that sets up, waits for a batch, or validates.

Safe points are where a step is complete and nothing of the next batch has been fetched. From one to the next a training
takes as long as its loader, its step and its validation take, and a notice can't wait for loaders and validations:

- Before anything was trained there is nothing to save: the main thread is woken and leaves.
- Fetching changes nothing but positions and generators. They are noted before it, so that the main thread may be woken
  anywhere in it: what is half done then is thrown away with the process, and the resumed run fetches the batch again.
- Validation may change anything while it lasts (averaged weights are swapped in, metrics fill). So the state is copied
  before it begins, and written only if a notice comes; the resumed run begins with the validation.

Nothing else is interrupted: a step is finished, and the next safe point saves it. Of several processes none is woken
once training has begun: they leave together, at the next safe point or before the next validation.
"""

import math
import multiprocessing
import signal
import time

import lightning.pytorch as pl

from spotproof.checkpoint import Checkpointer, RngState
from spotproof.lightning import _private as private
from spotproof.lightning._run import BeforeFetch
from spotproof.lightning._saves import Saves
from spotproof.loop.boundary import Boundary
from spotproof.loop.departure import Departure
from spotproof.loop.notice import Woken

__all__ = ["Waiting"]

_NOTE_BUDGET = 0.01
"""Share of the training time that noting positions and generators may take. It takes some 100 µs a batch, so that only
trainings with steps of less than 10 ms do without now and then; there a notice waits for the batch."""
_NOTE_GRANT_SECONDS = 0.25
"""On top of that, once."""
_VALIDATION_BUDGET = 0.02
"""Share of a validation's time that may be waited for a save under way and for the copy before it begins. A validation
that is shorter than fifty such copies is finished instead."""
_FIRST_WAIT_SECONDS = 60.0
"""The same before the first validation, of which nobody knows yet how long it takes."""


class Waiting:
    """Lets a notice act in set-up, fetches and validations of one ``fit``."""

    def __init__(
        self,
        trainer: "pl.Trainer",
        checkpointer: Checkpointer,
        departure: Departure,
        saves: Saves,
        boundary: Boundary,
    ) -> None:
        self._trainer = trainer
        self._checkpointer = checkpointer
        self._departure = departure
        self._notice = departure.notice
        self._saves = saves
        self._boundary = boundary
        self._has_trained = False
        self._before_fetch: BeforeFetch | None = None
        self._note_seconds = math.inf
        self._num_notes = 0
        self._began = 0.0
        self._validation_began: float | None = None
        self._validation_seconds: float | None = None
        self._hold_seconds = 0.0
        self._notice.may_wake = True

    def training_begins(self) -> None:
        """From here on there is something to save."""
        self._notice.may_wake = False
        self._has_trained = True
        self._began = time.perf_counter()

    # -- fetching ----------------------------------------------------------------------------------------------------

    def batch_follows(self) -> None:
        """Note what the next fetch changes, as long as the budget allows it."""
        if self._checkpointer.ranks is not None:
            return  # one that left a fetch by itself would leave the others waiting in their next step
        began = time.perf_counter()
        self._before_fetch = None
        budget = _NOTE_BUDGET * (began - self._began) + _NOTE_GRANT_SECONDS
        if self._num_notes == 0 or self._num_notes * self._note_seconds < budget:
            self._before_fetch = BeforeFetch(private.positions(self._trainer), RngState().state_dict())
            # The shortest, for any other may have been interrupted by the machine.
            self._note_seconds = min(self._note_seconds, time.perf_counter() - began)
            self._num_notes += 1

    def fetch_begins(self) -> None:
        """From here to :meth:`fetch_ended` a notice wakes the main thread, if that loses nothing."""
        if not self._can_leave():
            return
        self._notice.may_wake = True
        if self._departure.is_wanted:  # it came before the line above
            self._notice.may_wake = False
            raise Woken

    def fetch_ended(self) -> None:
        """The batch is here: from now on its work is half done."""
        self._notice.may_wake = not self._has_trained

    def _can_leave(self) -> bool:
        if not self._has_trained:
            return True
        if self._checkpointer.ranks is not None:
            return False
        if not self._trainer.validating:
            return self._before_fetch is not None
        writer = self._checkpointer.writer
        step = self._trainer.global_step
        is_durable = writer is not None and writer.last_committed_step == step
        return is_durable or self._checkpointer.held_step == step

    def woken(self) -> None:
        """Save what was at rest, and leave. Called in the main thread, once it is out of what it was woken from."""
        step, before = self._trainer.global_step, self._before_fetch
        try:
            if self._trainer.validating:
                self._departure.leave(step, self._checkpointer.save_held)
            self._departure.leave(step, lambda: self._saves.save(self._trainer, before_fetch=before))
        finally:
            _end_workers()

    # -- validation --------------------------------------------------------------------------------------------------

    def validation_follows(self) -> None:
        """Leave instead of validating if a notice came; else copy the state as it is before validation."""
        trainer = self._trainer
        step = trainer.global_step
        if self._boundary.settled(step).leaves:
            self._departure.leave(step, lambda: self._saves.save(trainer, between="validation"))
        self._validation_began = time.perf_counter()
        budget = _FIRST_WAIT_SECONDS
        if self._validation_seconds is not None:
            budget = _VALIDATION_BUDGET * self._validation_seconds
        if self._checkpointer.ranks is not None:
            return
        if self._hold_seconds > budget or not private.is_between_optimizer_steps(trainer):
            return
        if self._checkpointer.wait(budget):
            began = time.perf_counter()
            self._saves.hold(trainer, between="validation")
            self._hold_seconds = time.perf_counter() - began

    def validation_ended(self) -> None:
        """Remember how long it took."""
        if self._validation_began is not None:
            self._validation_seconds = time.perf_counter() - self._validation_began
            self._validation_began = None


def _end_workers() -> None:
    """End loader workers now. torch gives each five seconds to finish the batch that it will not finish.

    Python itself ends daemonic children so, at its exit, which is where we are going.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise that a worker was killed
    for child in multiprocessing.active_children():
        if child.daemon:
            child.terminate()
