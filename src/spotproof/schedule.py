"""When capacity is taken away: the grammar of ``--reclaim``, and a pure answer to "is a reclaim due now?".

    step:120,step:300 · at:30s,at:90s@grace=120 · every:60s · poisson:3/h@seed=7 · trace:FILE@speed=600 · none

In: the text, and then moments (elapsed seconds and the reported step) that the platform measures. Out: reclaims. There
is no clock here, so the same schedule gives the same reclaims in a test, in a simulator and in the local platform.
"""

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from spotproof.errors import SpecError

__all__ = ["Item", "Moment", "Reclaim", "Replay", "Schedule", "Trace", "parse_duration", "parse_schedule"]

Kind = Literal["step", "at", "every", "poisson", "trace"]

MAX_GRACE_SECONDS: Final = 120
"""Source: EC2's spot instance interruption notice comes two minutes ahead."""

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "step": ("grace",),
    "at": ("grace",),
    "every": ("grace",),
    "poisson": ("grace", "seed"),
    "trace": ("grace", "speed"),
}
_EXAMPLES: Final = "step:120 · at:30s@grace=120 · every:60s · poisson:3/h@seed=7 · trace:FILE@speed=600 · none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """How many instances were available over time; it repeats from its start when it ends."""

    gap_seconds: float
    """Between two values."""
    available: tuple[int, ...]

    @property
    def length_seconds(self) -> float:
        return self.gap_seconds * len(self.available)

    def available_at(self, seconds: float) -> int:
        """Return the number of instances available *seconds* after the trace's start."""
        return self.available[int(seconds / self.gap_seconds) % len(self.available)]


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
    seed: int = 0
    speed: float = 1.0
    """Trace seconds that pass in one second."""
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
        self._once = [item for item in items if item.kind in ("step", "at")]
        self._every = [item for item in items if item.kind == "every"]
        self._traces = [item for item in items if item.trace is not None]
        self._poisson = [_Poisson(item) for item in items if item.kind == "poisson"]
        self._reclaimed_attempt = -1

    def due(self, moment: Moment) -> Reclaim | None:
        """Return the reclaim that is due at *moment* and use it up; None if none is or this attempt had its own."""
        if moment.attempt <= self._reclaimed_attempt:
            return None
        item = self._due_item(moment)
        if item is None:
            return None
        self._reclaimed_attempt = moment.attempt
        return Reclaim(cause=item.text, grace_seconds=item.grace_seconds)

    def _due_item(self, moment: Moment) -> Item | None:
        for index, item in enumerate(self._once):
            if item.kind == "step":
                is_due = moment.step is not None and moment.step >= item.value
            else:
                is_due = moment.since_first_training_seconds >= item.value
            if is_due:
                return self._once.pop(index)
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
        waits = [item.value - moment.since_first_training_seconds for item in self._once if item.kind == "at"]
        waits += [item.value - moment.attempt_seconds for item in self._every]
        waits += [process.next_seconds - moment.trained_seconds for process in self._poisson]
        waits += [self._seconds_until(item, moment.job_seconds, wanted=False) for item in self._traces]
        shortest = min(waits, default=math.inf)
        return None if math.isinf(shortest) else max(0.0, shortest)

    def seconds_to_capacity(self, job_seconds: float) -> float:
        """Return the seconds until every trace has enough instances; 0 if they are there now, inf if never."""
        return max((self._seconds_until(item, job_seconds, wanted=True) for item in self._traces), default=0.0)

    def _is_available(self, item: Item, job_seconds: float) -> bool:
        assert item.trace is not None
        return item.trace.available_at(job_seconds * item.speed) >= self._num_instances

    def _seconds_until(self, item: Item, job_seconds: float, *, wanted: bool) -> float:
        trace = item.trace
        assert trace is not None
        position = job_seconds * item.speed
        tick = int(position / trace.gap_seconds)
        for ahead in range(len(trace.available) + 1):
            is_available = trace.available[(tick + ahead) % len(trace.available)] >= self._num_instances
            if is_available == wanted:
                return max(0.0, (tick + ahead) * trace.gap_seconds - position) / item.speed
        return math.inf


class _Poisson:
    """Seeded arrivals on training time."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._rng = random.Random(item.seed)
        self.next_seconds = 0.0
        self.advance()

    def advance(self) -> None:
        self.next_seconds += self._rng.expovariate(self.item.value)


def parse_duration(text: str) -> float:
    """Return the seconds in ``30s``, ``2m``, ``1h``, ``1.5s``, ``250ms``.

    Raises:
        ValueError: *text* is not a number with a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration.")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def parse_schedule(text: str, *, read: Callable[[str], str] | None = None) -> Schedule:
    """Return the schedule that *text* describes; nothing starts before all of it, trace files included, is valid.

    Args:
        text: Items separated by commas, or ``none``.
        read: Reads a trace file; the default reads UTF-8 from disk.

    Raises:
        SpecError: Names the bad item, why it is bad, and what would be right.
    """
    if text.strip() == "none":
        return Schedule(text="none", items=())
    items = tuple(_parse_item(part.strip(), read or _read) for part in text.split(","))
    return Schedule(text=text, items=items)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _bad(item: str, why: str, do: str) -> SpecError:
    return SpecError(f"Reclaim schedule item {item!r} can't be used:", why=why, do=do)


def _parse_item(text: str, read: Callable[[str], str]) -> Item:
    head, *options = text.split("@")
    kind, colon, value = head.partition(":")
    if not text:
        raise _bad(text, "it is empty.", f"Write one of {_EXAMPLES}.")
    if kind == "none":
        raise _bad(text, "`none` stands alone.", "Use `none` by itself, or leave it out.")
    if kind not in _OPTIONS or not colon:
        raise _bad(text, f"it is not KIND:VALUE with KIND one of {', '.join(_OPTIONS)}.", f"Write one of {_EXAMPLES}.")
    given = dict(_parse_option(text, kind, option) for option in options)
    if len(given) < len(options):
        raise _bad(text, "an option is given twice.", "Give each option once.")
    trace = _parse_trace(text, value, read) if kind == "trace" else None
    return Item(
        kind=kind,  # type: ignore[arg-type]  # checked against _OPTIONS above
        text=text,
        value=_parse_value(text, kind, value),
        trace=trace,
        grace_seconds=given.get("grace", 0.0),
        seed=int(given.get("seed", 0)),
        speed=given.get("speed", 1.0),
    )


def _parse_value(text: str, kind: str, value: str) -> float:
    if kind == "step":
        if not re.fullmatch(r"\d{1,15}", value):
            raise _bad(text, f"{value!r} is not a step.", "Steps are whole numbers from 0: step:120.")
        return float(value)
    if kind == "poisson":
        match = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|m|h|d)", value)
        if match is None or float(match[1]) == 0:
            raise _bad(text, f"{value!r} is not a rate above 0.", "Write reclaims per time: poisson:3/h@seed=7.")
        return float(match[1]) / _UNIT_SECONDS[match[2]]
    if kind in ("at", "every"):
        try:
            seconds = parse_duration(value)
        except ValueError:
            raise _bad(
                text,
                f"{value!r} is not a duration.",
                f"Write a number and a unit: {kind}:30s, {kind}:2m, {kind}:1.5s, {kind}:1h.",
            ) from None
        if kind == "every" and seconds == 0:
            raise _bad(text, "no attempt could ever train.", "Use more than 0 seconds: every:60s.")
        return seconds
    return 0.0


def _parse_option(text: str, kind: str, option: str) -> tuple[str, float]:
    key, _, value = option.partition("=")
    if key not in _OPTIONS[kind]:
        raise _bad(
            text, f"{kind} has no option {key!r}.", f"Its options: {', '.join('@' + name for name in _OPTIONS[kind])}."
        )
    if key == "seed":
        if not re.fullmatch(r"\d{1,15}", value):
            raise _bad(text, f"seed {value!r} is not a whole number.", "Write @seed=7.")
        return key, float(value)
    if not re.fullmatch(r"\d+(\.\d+)?s?", value):
        raise _bad(text, f"{key} {value!r} is not a number.", f"Write @{key}={'120' if key == 'grace' else '600'}.")
    number = float(value.rstrip("s"))
    if key == "grace" and number > MAX_GRACE_SECONDS:
        raise _bad(
            text, f"grace {value} is above {MAX_GRACE_SECONDS}.", "Spot capacity gives 0 to 120 seconds: @grace=120."
        )
    if key == "speed" and number == 0:
        raise _bad(text, "at speed 0 the trace stands still.", "Use more than 0: @speed=600.")
    return key, number


def _parse_trace(text: str, path: str, read: Callable[[str], str]) -> Trace:
    try:
        document = json.loads(read(path))
    except OSError as error:
        raise _bad(
            text, f"the file {path!r} can't be read ({error.strerror or error}).", "Give a path to a trace file."
        ) from error
    except ValueError as error:
        raise _bad(text, f"{path!r} is not JSON ({error}).", _TRACE_FORM) from error
    try:
        gap, data = document["metadata"]["gap_seconds"], document["data"]
    except (KeyError, TypeError):
        raise _bad(text, f"{path!r} has no metadata.gap_seconds or no data.", _TRACE_FORM) from None
    is_gap = isinstance(gap, (int, float)) and not isinstance(gap, bool) and 0 < gap < math.inf
    if not is_gap or not isinstance(data, list) or not data or not all(type(v) is int and v >= 0 for v in data):
        raise _bad(
            text, f"{path!r} must have gap_seconds above 0 and at least one count, all whole and from 0.", _TRACE_FORM
        )
    return Trace(gap_seconds=float(gap), available=tuple(data))


_TRACE_FORM: Final = (
    'A trace is {"metadata": {"gap_seconds": 300}, "data": [1, 1, 0, …]}: instances available at each tick.'
)
