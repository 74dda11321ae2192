"""The background half of a save: hash, write, commit, retain. Training sees only the copy."""

import logging
import math
import queue
import random
import threading
import time

from spotproof.checkpoint.commit import Committer, Found
from spotproof.checkpoint.journal import Journal, RelayedJournal
from spotproof.checkpoint.packing import TensorChanged
from spotproof.checkpoint.stage import StagedState
from spotproof.checkpoint.stalled import StallWatch
from spotproof.checkpoint.unchanging import Unchanging
from spotproof.errors import CheckpointConflict
from spotproof.events import CheckpointCommitted, SaveFailed, SavePostponed, SaveStalled, Warned

__all__ = ["Writer"]

log = logging.getLogger(__name__)

_RETRY_FACTOR = 20
"""After a save that failed, training goes on for this many times what the try took before the next: on a disk that
refuses at once, tries take some 5 % of the time at most, however often saves are due."""
_MAX_RETRY_SECONDS = 60.0
"""The same at most: a network that is given up after a minute costs the training nothing."""
_FIRST_PAUSE_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 300.0
"""If none is due before, a save that failed is made again after a pause that doubles from the one to the other."""
_MAX_REASONS = 20
_jitter = random.Random()
"""Not the global generator, which is a part of the training's state."""


def _whisper(level: int, message: str, *args: object) -> None:
    """Log for the curious what another rank tells everybody."""
    log.debug(message, *args)


class Writer:
    """Writes one staged state at a time in a thread of its own.

    Order of a commit: packs and state first, each atomic and durable; the manifest last. Killed anywhere, the storage
    holds the checkpoints that were committed before, and perhaps packs that no manifest names, which the next
    retention removes.
    """

    def __init__(
        self,
        committer: Committer,
        journal: Journal | RelayedJournal,
        unchanging: Unchanging,
        *,
        url: str,
        last_committed_step: int | None,
        speaks: bool = True,
    ) -> None:
        """Prepare; writes nothing.

        Args:
            committer: What a save does.
            journal: Where it is told.
            unchanging: What need not be copied.
            url: Where the checkpoints are, for messages.
            last_committed_step: The step that this process goes on from.
            speaks: Whether to warn people; of several ranks one does.
        """
        self._committer = committer
        self._journal = journal
        self._unchanging = unchanging
        self._url = url
        self._speaks = speaks
        self._log = log.log if speaks else _whisper
        # One thread for all saves: to start one for each would be a part of each stall.
        self._thread = threading.Thread(target=self._serve, name="spotproof-write", daemon=True)
        self._watch: StallWatch | None = None
        self._saves: queue.SimpleQueue[tuple[int, StagedState, dict[str, object]]] = queue.SimpleQueue()
        self._is_idle = threading.Event()
        self._is_idle.set()
        self.conflict: CheckpointConflict | None = None
        """Set when a newer attempt was found to write here; this one must stop."""
        self.last_durable_seconds: float | None = None
        """From the end of the stall to the commit, of the last save."""
        self.last_committed_step = last_committed_step
        """Of the newest checkpoint that this process wrote or resumed from."""
        self.must_repeat = False
        """Whether the last save was given up because a tensor that was taken to be unchanging had changed."""
        self._busy_since = 0.0
        self._step = 0
        self.failure: Exception | None = None
        """Why the last save failed, if it did."""
        self.retry_at = 0.0
        """When a save may be tried again after one that failed (``time.monotonic``)..."""
        self._repeat_at = math.inf
        """...and when it should be, whether or not one is due."""
        self._num_failures = 0
        """Saves that failed since the last good one..."""
        self._reasons: set[str] = set()
        """...and why; each reason is said once."""
        self._has_retain_warned = False

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way; then its staged buffers must not be touched."""
        return not self._is_idle.is_set()

    @property
    def wants_retry(self) -> bool:
        """Whether the last save failed, and long enough ago that it should be made again now."""
        return time.monotonic() >= max(self._repeat_at, self.retry_at)

    @property
    def busy_seconds(self) -> float:
        """Return how long the save under way has been written for."""
        return time.monotonic() - self._busy_since if self.is_busy else 0.0

    def submit(self, step: int, staged: StagedState, meta: dict[str, object]) -> None:
        """Start writing *staged*; the caller has made sure that no save is under way."""
        assert not self.is_busy
        self._step, self._busy_since = step, time.monotonic()
        self._repeat_at = math.inf
        self._is_idle.clear()
        if not self._thread.is_alive():
            self._thread.start()
        if self._watch is None:
            self._watch = StallWatch(
                self._is_idle, lambda: self.busy_seconds, lambda: self.last_durable_seconds, self._tell_stalled
            )
        self._watch.save_begins()
        self._saves.put((step, staged, meta))

    def wait(self, timeout: float | None = None) -> bool:
        """Return when no save is under way, or after *timeout* seconds; tell whether none is."""
        return self._is_idle.wait(timeout)

    def _serve(self) -> None:
        while True:
            save = self._saves.get()
            try:
                self._run(*save)
            finally:
                del save  # holds tensors of the training
                self._is_idle.set()

    def _run(self, step: int, staged: StagedState, meta: dict[str, object]) -> None:
        began = time.perf_counter()
        self.must_repeat, self.failure = False, None
        try:
            self._note_removed(self._committer.begin())
            committed = self._committer.commit(step, staged, meta)
        except TensorChanged as err:
            for name in err.names:
                self._unchanging.disappointed(name)
            self.must_repeat = True
            self._journal.write(SavePostponed(attempt=self._journal.attempt, step=step))
            log.debug("The save of step %d is made again: %s.", step, err)
            return
        except CheckpointConflict as err:
            self._stop(step, err)
            return
        except Exception as err:  # whatever the storage raises, training and the older checkpoints must not die of it
            self._failed(step, err)
            tried_seconds = staged.stall_seconds + time.perf_counter() - began
            self.retry_at = time.monotonic() + min(_MAX_RETRY_SECONDS, _RETRY_FACTOR * tried_seconds)
            return
        self.last_durable_seconds = time.perf_counter() - began
        self.last_committed_step = step
        self._journal.write(
            CheckpointCommitted(
                attempt=self._journal.attempt,
                step=step,
                stall_seconds=round(staged.stall_seconds, 6),
                durable_seconds=round(self.last_durable_seconds, 6),
                total_bytes=committed.total_bytes,
                written_bytes=committed.written_bytes,
            )
        )
        if self._num_failures:
            self._log(
                logging.WARNING,
                "Step %d is saved: %s can be written to again, after %d saves that failed.",
                step,
                self._url,
                self._num_failures,
            )
            self._num_failures = 0
            self._reasons.clear()
        try:
            self._committer.retain()
            self._has_retain_warned = False
        except CheckpointConflict as err:
            self._stop(step, err)
        except Exception as err:  # as above
            if not self._has_retain_warned:
                self._has_retain_warned = True
                self._warn(f"Old checkpoints in {self._url} could not be removed: {err}. They are tried again.")

    def _stop(self, step: int, err: CheckpointConflict) -> None:
        self.conflict = err
        self._journal.write(SaveFailed(attempt=self._journal.attempt, step=step, reason=str(err)))
        self._log(logging.ERROR, "The save of step %d is given up. %s", step, err)

    def _failed(self, step: int, err: Exception) -> None:
        try:
            self._committer.refuse_if_superseded()  # its start takes away what this attempt has staged
        except CheckpointConflict as conflict:
            self._stop(step, conflict)
            return
        except OSError:
            pass
        self.failure = err
        self._num_failures += 1
        reason = f"{type(err).__name__} {err.errno if isinstance(err, OSError) else err}"
        is_new = reason not in self._reasons and len(self._reasons) < _MAX_REASONS
        # A disk that stays full for days must not fill with what is said about it: the 1st, 2nd, 4th, 8th … is told.
        if is_new or self._num_failures & (self._num_failures - 1) == 0:
            self._journal.write(SaveFailed(attempt=self._journal.attempt, step=step, reason=f"{err!r:.1000}"))
        if is_new:
            self._reasons.add(reason)
            self._log(
                logging.WARNING,
                "The checkpoint of step %d could not be written to %s: %s. Training goes on; the older checkpoints are "
                "untouched, and the save is made again soon. Free space or mend the place if this repeats.",
                step,
                self._url,
                err,
            )
        pause_seconds = min(_MAX_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self._num_failures - 1, 10))
        self._repeat_at = time.monotonic() + pause_seconds * _jitter.uniform(0.75, 1.25)

    def _note_removed(self, found: Found) -> None:
        """Say it if somebody removed our checkpoints, and count on them no longer."""
        removed, newest = found.removed, found.newest
        if removed and removed[-1] > (-1 if newest is None else newest):  # old ones may be pruned by hand
            self.last_committed_step = newest
            if not self._speaks:
                return
            self._warn(
                f"The newest checkpoint, of step {removed[-1]}, was removed from {self._url} by something else "
                "than this training. It goes on, and saves everything anew. Find out what cleans up there: a reclaim "
                "before the next save loses all that was trained."
            )

    def _warn(self, message: str) -> None:
        self._log(logging.WARNING, message)
        self._journal.write(Warned(attempt=self._journal.attempt, message=message))

    def _tell_stalled(self, seconds: float) -> None:
        usual_seconds = self.last_durable_seconds
        self._journal.write(SaveStalled(attempt=self._journal.attempt, step=self._step, seconds=round(seconds, 1)))
        self._log(
            logging.WARNING,
            "The save of step %d to %s has been under way for %.3g s (the one before took %s). Until it is through, a "
            "reclaim loses all that was trained since the checkpoint before. Check the disk or the network.",
            self._step,
            self._url,
            seconds,
            f"{usual_seconds:.1f} s" if usual_seconds is not None else "no time yet: it is the first",
        )
