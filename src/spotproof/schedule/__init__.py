"""When capacity is taken away: the grammar of ``--reclaim``, and a pure answer to "is a reclaim due now?".

    step:120,step:300 · at:30s,at:90s@grace=120 · every:60s@away=5m · poisson:3/h@seed=7 · trace:FILE@speed=600 · none

In: the text, and then moments (elapsed seconds and the reported step) that the platform measures. Out: reclaims. There
is no clock here, so the same schedule gives the same reclaims in a test, in a simulator and in the local platform.
``items`` is the form that lists of faults have as well.
"""

from spotproof.durations import parse_duration
from spotproof.schedule.grammar import MAX_GRACE_SECONDS, parse_schedule, read_trace
from spotproof.schedule.items import Grammar, Words
from spotproof.schedule.recorded import RECORDED, RECORDED_PREFIX
from spotproof.schedule.replay import Item, Moment, Reclaim, Replay, Schedule
from spotproof.schedule.trace import Trace

__all__ = [
    "MAX_GRACE_SECONDS",
    "RECORDED",
    "RECORDED_PREFIX",
    "Grammar",
    "Item",
    "Moment",
    "Reclaim",
    "Replay",
    "Schedule",
    "Trace",
    "Words",
    "parse_duration",
    "parse_schedule",
    "read_trace",
]
