"""A schedule at work: given moments of a job, the reclaims that are due. Pure: the same moments, the same answers."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spotproof.schedule.trace import Trace

__all__ = ["Item", "Moment", "Reclaim", "Replay", "Schedule"]

Kind = Literal["step", "at", "every", "poisson", "trace"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One ``KIND:VALUE[@key=value]…``."""

    kind: Kind
    text: str
    """As the user wrote it."""
    value: float
    """A step, seconds, or reclaims per second (poisson); unused for a trace."""
    grace_seconds: float = 0.0
    """Between SIGTERM and SIGKILL; 0 is SIGKILL at once, without SIGTERM."""
    away_seconds: float | None = None
    """How long capacity stays away after the reclaim; None for as long as the platform is set to. A trace says it."""
    seed: int = 0
    speed: float = 1.0
    """Trace seconds that pass in one second."""
    start_seconds: float = 0.0
    """Where in the trace the job is created."""
    trace: Trace | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """What the platform has measured of one job, now."""

    attempt: int
    job_seconds: float
    """Since the job was created. Traces run on it."""
    since_first_training_seconds: float
    """Since training first started, waiting included. ``at`` counts it."""
    attempt_seconds: float
    """Since training started in this attempt. ``every`` counts it."""
    trained_seconds: float
    """Training time of all attempts together. ``poisson`` counts it."""
    step: int | None = None
    """The last step that this attempt has reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reclaim:
    """Take the capacity of the running attempt, now."""

    cause: str
    """The item that asked for it."""
    grace_seconds: float
    away_seconds: float | None = None
    """Until there is capacity again; None for as long as the platform is set to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A parsed schedule; any number of jobs may replay it."""

    text: str
    items: tuple[Item, ...]

    @property
    def has_steps(self) -> bool:
        """Whether reclaims wait for steps, so that every step has to be reported."""
        return any(item.kind == "step" for item in self.items)

    def replay(self, num_instances: int) -> "Replay":
        """Return a fresh replay for one job of *num_instances* instances."""
        return Replay(self.items, num_instances)


class Replay:
    """One job's way through a schedule.

    An attempt is reclaimed at most once. ``step``, ``at`` and ``poisson`` items are used up by the reclaim they cause;
    one that came due while nothing ran fires as soon as training runs again, so none is lost.
    """

    def __init__(self, items: Sequence[Item], num_instances: int) -> None:
        self._num_instances = num_instances
        self._used: set[int] = set()
        self._once = [(index, item) for index, item in enumerate(items) if item.kind in ("step", "at")]
        self._every = [item for item in items if item.kind == "every"]
        self._traces = [item for item in items if item.trace is not None]
        self._poisson = [_Poisson(item) for item in items if item.kind == "poisson"]
        self._reclaimed_attempt = -1

    def position(self) -> dict[str, Any]:
        """Return how far it has come, for :meth:`seek`; JSON can hold it."""
        return {
            "used": sorted(self._used),
            "arrivals": [process.num_used for process in self._poisson],
            "reclaimed_attempt": self._reclaimed_attempt,
        }

    def seek(self, position: Mapping[str, Any]) -> None:
        """Go on, in a fresh replay of the same schedule, where another one's :meth:`position` was.

        Raises:
            KeyError, TypeError, ValueError: It is none of this schedule.
        """
        self._used = set(position["used"])
        for process, num_used in zip(self._poisson, position["arrivals"], strict=True):
            while process.num_used < num_used:
                process.advance()
        self._reclaimed_attempt = position["reclaimed_attempt"]

    def due(self, moment: Moment) -> Reclaim | None:
        """Return the reclaim that is due at *moment* and use it up; None if none is or this attempt had its own."""
        if moment.attempt <= self._reclaimed_attempt:
            return None
        item = self._due_item(moment)
        if item is None:
            return None
        self._reclaimed_attempt = moment.attempt
        return Reclaim(cause=item.text, grace_seconds=item.grace_seconds, away_seconds=item.away_seconds)

    def _due_item(self, moment: Moment) -> Item | None:
        for index, item in self._once:
            if index in self._used:
                continue
            if item.kind == "step":
                is_due = moment.step is not None and moment.step >= item.value
            else:
                is_due = moment.since_first_training_seconds >= item.value
            if is_due:
                self._used.add(index)
                return item
        for item in self._every:
            if moment.attempt_seconds >= item.value:
                return item
        for process in self._poisson:
            if moment.trained_seconds >= process.next_seconds:
                process.advance()
                return process.item
        for item in self._traces:
            if not self._is_available(item, moment.job_seconds):
                return item
        return None

    def seconds_to_next(self, moment: Moment) -> float | None:
        """Return the seconds until time alone may make a reclaim due; None if only a step can."""
        if moment.attempt <= self._reclaimed_attempt:
            return None
        waits = [
            item.value - moment.since_first_training_seconds
            for index, item in self._once
            if item.kind == "at" and index not in self._used
        ]
        waits += [item.value - moment.attempt_seconds for item in self._every]
        waits += [process.next_seconds - moment.trained_seconds for process in self._poisson]
        waits += [self._seconds_until(item, moment.job_seconds, wanted=False) for item in self._traces]
        shortest = min(waits, default=math.inf)
        return None if math.isinf(shortest) else max(0.0, shortest)

    def seconds_to_capacity(self, job_seconds: float) -> float:
        """Return the seconds until every trace has enough instances; 0 if they are there now, inf if never."""
        return max((self._seconds_until(item, job_seconds, wanted=True) for item in self._traces), default=0.0)

    def _is_available(self, item: Item, job_seconds: float) -> bool:
        return self._seconds_until(item, job_seconds, wanted=True) == 0

    def _seconds_until(self, item: Item, job_seconds: float, *, wanted: bool) -> float:
        assert item.trace is not None
        place = item.start_seconds + job_seconds * item.speed
        return item.trace.seconds_until(place, self._num_instances, wanted=wanted) / item.speed


class _Poisson:
    """Seeded arrivals on training time."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._rng = random.Random(item.seed)
        self.next_seconds = 0.0
        self.num_used = -1
        self.advance()

    def advance(self) -> None:
        self.num_used += 1
        self.next_seconds += self._rng.expovariate(self.item.value)
