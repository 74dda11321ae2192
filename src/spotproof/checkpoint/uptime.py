"""How long this run goes on between two interruptions, from what its earlier attempts left. Pure: no clock, no I/O."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from spotproof.events import AttemptEnded, parse_events

__all__ = ["PRIOR_SECONDS", "MeanUptime", "Uptime", "mean_uptime", "uptime_of"]

PRIOR_SECONDS = 2 * 3600.0
"""Assumed running time between interruptions before any was seen: AWS's lowest interruption bands are weeks, recorded
traces of busy GPU types have means of one to ten hours, and those of a rehearsal are minutes."""
_PRIOR_SPREAD = 2.0
"""Standard deviation of its logarithm: right within a factor of seven two times in three, of fifty nineteen times in
twenty."""
_GRID = [step / 40 for step in range(-160, 161)]
"""Standard deviations around the prior at which the posterior is looked at."""

_LONGEST_SILENCE_SECONDS = 3600.0
"""A training tells its progress each second. A longer silence than this is a clock that was set, or a machine that
slept; it is no running time."""
_STAMP_REGEX = re.compile(rb'"at":"(\d{4}-[0-9T:.+-]{14,29})"')
_PROGRESS, _ENDED = b'"event":"progress"', b'"event":"attempt_ended"'
_COMMITTED = b'"event":"checkpoint_committed"'


@dataclass(frozen=True, slots=True)
class Uptime:
    """How long one attempt ran."""

    seconds: float
    is_interrupted: bool
    """Whether the machine was taken; False if the attempt ended by itself."""


@dataclass(frozen=True, slots=True)
class MeanUptime:
    """Running time between interruptions."""

    seconds: float
    """> 0."""
    interruptions: int
    """That were seen; with none, the time is an assumption."""


def uptime_of(events: bytes) -> Uptime | None:
    """Return how long the attempt of an event file ran, or None if it had no work to lose.

    A kill leaves no :class:`~spotproof.events.AttemptEnded`; it is an interruption. So is a notice, though its work was
    saved: the machine went away, and nobody knows whether the next one asks first. An attempt that finished or failed
    with an error ran, and was not interrupted: a bug that comes back is not met by saving more often. One that never
    trained, killed or failed in its set-up, says nothing about trainings.

    Times are added up from line to line, so that a clock that was set costs one gap; a torn or damaged file counts as
    far as it can be read.
    """
    last_progress = max(events.rfind(_PROGRESS), events.rfind(_COMMITTED))
    if last_progress < 0:
        return None
    seconds, before = 0.0, None
    for stamp in _STAMP_REGEX.findall(events):
        try:
            now = datetime.fromisoformat(stamp.decode()).timestamp()
        except (ValueError, OverflowError):
            continue
        if before is not None and 0 <= now - before <= _LONGEST_SILENCE_SECONDS:
            seconds += now - before
        before = now
    is_interrupted = True
    ended = events.rfind(_ENDED)
    if ended > last_progress:
        line = events[events.rfind(b"\n", 0, ended) + 1 :].split(b"\n", 1)[0].decode(errors="replace")
        for event in parse_events([line]):
            is_interrupted = isinstance(event, AttemptEnded) and event.outcome == "notice"
    return Uptime(seconds, is_interrupted)


def mean_uptime(
    earlier: Sequence[Uptime], current_seconds: float = 0.0, prior_seconds: float = PRIOR_SECONDS
) -> MeanUptime:
    """Return the running time between interruptions to reckon with, from the prior and what was seen.

    What was seen are lifetimes at a constant rate, of which some were cut off: with mean m its likelihood is
    ``m^-interruptions · e^(-running time / m)``. What an interval loses is in proportion to the rate 1/m, so what is
    returned is one over the rate that is to be expected. As long as nothing is known that is much less than the median
    of the prior: a machine that lasts for minutes loses by a long interval what one that lasts for days never gains by
    it. It grows while nothing happens.

    Args:
        earlier: Earlier attempts of this run.
        current_seconds: How long this attempt has run; it has not been interrupted.
        prior_seconds: What to assume before anything was seen.
    """
    interruptions = sum(uptime.is_interrupted for uptime in earlier)
    running = sum(uptime.seconds for uptime in earlier) + max(0.0, current_seconds)
    means = [prior_seconds * math.exp(_PRIOR_SPREAD * z) for z in _GRID]
    logs = [-z * z / 2 - running / mean - interruptions * math.log(mean) for z, mean in zip(_GRID, means, strict=True)]
    highest = max(logs)
    weights = [math.exp(log - highest) for log in logs]
    rate = sum(weight / mean for weight, mean in zip(weights, means, strict=True)) / sum(weights)
    return MeanUptime(max(1.0, 1 / rate), interruptions)
