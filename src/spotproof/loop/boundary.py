"""What is done at a step boundary: the same in every process of a training.

A notice reaches one host, and time passes differently on each; so what to do is agreed on. To agree takes a message to
everybody and back. It is sent when a boundary is left, and read at the next, by when it has long arrived: that costs
some 0.1 ms a step, and the decision is one step old. Where steps take long it is sent and read at once instead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.ranks import Ranks
from spotproof.errors import CheckpointConflict, SpecError
from spotproof.loop.departure import Departure
from spotproof.loop.saves import ScheduledSaves

__all__ = ["Boundary", "Decision"]

_SLOW_STEP_SECONDS = 0.05
"""From here on the message costs nothing to speak of, and a step more would cost a notice its time."""
_SOURCES = ("", "SIGTERM", "SIGUSR1", "SIGUSR2", "EC2")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do at a boundary."""

    leaves: bool
    """Whether a notice came, to any process of the training."""
    saves: bool
    """Whether a save is due."""


@dataclass(frozen=True, slots=True)
class _Answer:
    source: str
    has_conflict: bool
    is_due: bool
    is_held_off: bool
    is_slow: bool


class Boundary:
    """Decides at the boundaries of one training; every process must come to each of them, at the same step."""

    def __init__(self, checkpointer: Checkpointer, departure: Departure, saves: ScheduledSaves) -> None:
        self._checkpointer, self._departure, self._saves = checkpointer, departure, saves
        self._under_way: Callable[[], list[int]] | None = None
        self._is_slow = False
        self._reached_at = time.monotonic()

    def reached(self, step: int) -> Decision:
        """Return what to do now that *step* is complete; call :meth:`left` when it is done.

        Raises:
            CheckpointConflict: A newer attempt writes to the same place.
            SpecError: The processes are at different steps.
        """
        ranks = self._checkpointer.ranks
        if ranks is None:
            self._checkpointer.raise_conflict()
            wanted = self._departure.is_wanted
            return Decision(wanted, not wanted and self._saves.is_due(step))
        answer = self._read(ranks) if self._under_way else self._asked(ranks, step)
        self._is_slow = answer.is_slow
        self._reached_at = time.monotonic()
        # A step that is due by its number is due everywhere, which needs no message.
        is_due = (answer.is_due or self._saves.is_due_by_steps(step)) and not answer.is_held_off
        return Decision(bool(answer.source), is_due and not answer.source and not self._saves.is_saved(step))

    def settled(self, step: int) -> Decision:
        """Return what to do where nothing is pressing, such as the end: by what is known everywhere at this moment."""
        ranks = self._checkpointer.ranks
        if ranks is not None and self._under_way is not None:
            self._read(ranks)
        return self.reached(step)

    def left(self, step: int) -> None:
        """Say that what was decided at *step* is done."""
        ranks = self._checkpointer.ranks
        if ranks is not None and not self._is_slow:
            self._under_way = ranks.loop.begin_maximum(self._message(ranks, step))

    def _asked(self, ranks: Ranks, step: int) -> _Answer:
        self._under_way = ranks.loop.begin_maximum(self._message(ranks, step))
        return self._read(ranks)

    def _message(self, ranks: Ranks, step: int) -> list[int]:
        writer = self._checkpointer.writer
        source = self._departure.notice.source or ""
        return [
            step,
            -step,
            _SOURCES.index(source.partition(" ")[0]),  # the metadata service's says more than its name
            writer is not None and writer.conflict is not None,
            ranks.is_lead and self._saves.is_due(step),
            self._saves.is_held_off,
            ranks.is_lead and time.monotonic() - self._reached_at > _SLOW_STEP_SECONDS,
        ]

    def _read(self, ranks: Ranks) -> _Answer:
        assert self._under_way is not None
        result, self._under_way = self._under_way, None
        newest, oldest, source, *flags = result()
        if newest != -oldest:
            raise SpecError(
                f"The processes of this training are at different steps, {-oldest} to {newest}.",
                why="They save together, so each must complete the same steps.",
                do="Call step_done() in every process after every optimizer step, and give each as many batches.",
            )
        answer = _Answer(_SOURCES[source], *map(bool, flags))
        if answer.has_conflict:
            self._checkpointer.wait()
            self._checkpointer.raise_conflict()
            raise CheckpointConflict(
                f"Another attempt writes to {self._checkpointer.storage.url} too, so this one stops.",
                do="Give each run a folder of its own, or end the process that is not wanted.",
            )
        if answer.source:
            self._departure.notice.heard(answer.source)
        return answer
