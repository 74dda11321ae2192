"""When a job loses its machines, and from when on it may have others: its way through the schedule. No clock, no I/O.

Instants are seconds since 1970. What the state machine says decides; this only measures for the schedule.
"""

import math
from collections.abc import Mapping
from typing import Any

from spotproof.schedule import Moment, Reclaim, Schedule

__all__ = ["Reclaims"]


class Reclaims:
    """One job's measures and its replay of the schedule."""

    def __init__(
        self, schedule: Schedule, *, num_hosts: int, is_spot: bool, created_at: float, capacity_wait_seconds: float
    ) -> None:
        self.schedule = schedule if is_spot else Schedule(text="none", items=())
        self._replay = self.schedule.replay(num_hosts)
        self._created_at, self._capacity_wait_seconds = created_at, capacity_wait_seconds
        self._away_seconds = capacity_wait_seconds
        self._capacity_at: float | None = None
        """From when on instances may be asked for; None while there are some, or while they are asked for."""
        self._step: int | None = None
        self._first_training_at: float | None = None
        self._attempt_training_at: float | None = None
        self._trained_seconds = 0.0

    def to_document(self) -> dict[str, Any]:
        """Return what outlives the server, as JSON can hold it."""
        return {
            "first_training_at": self._first_training_at,
            "attempt_training_at": self._attempt_training_at,
            "trained_seconds": self._trained_seconds,
            "away_seconds": self._away_seconds,
            "replay": self._replay.position(),
        }

    def load(self, document: Mapping[str, Any]) -> None:
        """Go on where :meth:`to_document` was.

        Raises:
            KeyError, IndexError, TypeError, ValueError: It is of another schedule.
        """
        self._first_training_at = document["first_training_at"]
        self._attempt_training_at = document["attempt_training_at"]
        self._trained_seconds = document["trained_seconds"]
        self._away_seconds = document["away_seconds"]
        self._replay.seek(document["replay"])

    def begin_training(self, now: float) -> None:
        """An attempt's commands run from now on."""
        self._step = None
        self._attempt_training_at = now
        if self._first_training_at is None:
            self._first_training_at = now

    def end_training(self, at: float) -> None:
        """They don't any more. Harmless twice."""
        if self._attempt_training_at is not None:
            self._trained_seconds += max(0.0, at - self._attempt_training_at)
            self._attempt_training_at = None

    def take_step(self, step: int) -> None:
        """The running attempt has reported *step*."""
        self._step = step

    def due(self, attempt: int, now: float) -> Reclaim | None:
        """Return the reclaim of the training *attempt* that is due now, and use it up."""
        moment = self._moment(attempt, now)
        reclaim = self._replay.due(moment) if moment is not None else None
        if reclaim is not None:
            self.set_away(reclaim.away_seconds)
        return reclaim

    def set_away(self, seconds: float | None) -> None:
        """A reclaim has come after which there is no capacity for *seconds*; None for as long as the platform says."""
        self._away_seconds = self._capacity_wait_seconds if seconds is None else seconds

    def seconds_to_next(self, attempt: int, now: float) -> float:
        """Return the seconds until time alone may make a reclaim of the training *attempt* due."""
        moment = self._moment(attempt, now)
        seconds = self._replay.seconds_to_next(moment) if moment is not None else None
        return math.inf if seconds is None else seconds

    def request_capacity(self, attempt: int, since: float) -> None:
        """*attempt* needs instances *since* then: at once if it is the first one, else when they are back."""
        self._capacity_at = since + (self._away_seconds if attempt > 0 else 0.0)

    def take_capacity(self) -> None:
        """It stands in the queue, or has some."""
        self._capacity_at = None

    def seconds_to_capacity(self, now: float) -> float:
        """Return the seconds until instances may be asked for; infinity if none are needed."""
        if self._capacity_at is None:
            return math.inf
        return max(self._capacity_at - now, self.seconds_to_supply(now))

    def seconds_to_supply(self, now: float) -> float:
        """Return the seconds until the schedule has enough instances; 0 or less if it has."""
        return self._replay.seconds_to_capacity(now - self._created_at)

    def _moment(self, attempt: int, now: float) -> Moment | None:
        if self._first_training_at is None or self._attempt_training_at is None:
            return None
        attempt_seconds = now - self._attempt_training_at
        return Moment(
            attempt=attempt,
            job_seconds=now - self._created_at,
            since_first_training_seconds=now - self._first_training_at,
            attempt_seconds=attempt_seconds,
            trained_seconds=self._trained_seconds + attempt_seconds,
            step=self._step,
        )
