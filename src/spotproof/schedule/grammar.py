"""The text of a reclaim schedule into items; nothing starts before all of it, trace files included, is valid."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from spotproof.schedule.items import Grammar, Words
from spotproof.schedule.recorded import RECORDED, RECORDED_PREFIX, read_recorded
from spotproof.schedule.replay import Item, Schedule
from spotproof.schedule.trace import Trace
from spotproof.schedule.trace_files import POLARITIES, UNITS, TraceError, parse_trace

__all__ = ["MAX_GRACE_SECONDS", "parse_schedule", "read_trace"]

MAX_GRACE_SECONDS: Final = 120
"""Source: EC2's spot instance interruption notice comes two minutes ahead."""

_RATE_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_GRAMMAR: Final = Grammar(
    subject="Reclaim schedule item",
    options={
        "step": ("grace", "away"),
        "at": ("grace", "away"),
        "every": ("grace", "away"),
        "poisson": ("grace", "away", "seed"),
        "trace": ("grace", "speed", "start", "polarity", "unit"),
    },
    examples="step:120 · at:30s@grace=120 · every:60s@away=5m · poisson:3/h@seed=7 · trace:FILE@speed=600 · none",
    path_values=frozenset({"trace"}),
)


def parse_schedule(text: str, *, read: Callable[[str], str] | None = None) -> Schedule:
    """Return the schedule that *text* describes.

    Args:
        text: Items separated by commas, or ``none``.
        read: Reads a trace file; the default reads UTF-8 from disk.

    Raises:
        SpecError: Names the bad item, why it is bad, and what would be right.
    """
    words = _GRAMMAR.parse(text)
    items = tuple(_item(item, read) for item in words)
    return Schedule(text=text if items else "none", items=items)


def _read(path: str) -> str:
    return Path(path).expanduser().read_text(encoding="utf-8")


def _item(words: Words, read: Callable[[str], str] | None) -> Item:
    grace = words.seconds("grace", example="120") or 0.0
    if grace > MAX_GRACE_SECONDS:
        raise words.bad(
            f"grace {words.options['grace']} is above {MAX_GRACE_SECONDS}.",
            "Spot capacity gives 0 to 120 seconds: @grace=120.",
        )
    speed = words.number("speed", 1.0, example="600")
    if speed == 0:
        raise words.bad("at speed 0 the trace stands still.", "Use more than 0: @speed=600.")
    return Item(
        kind=words.kind,  # type: ignore[arg-type]  # checked by the grammar
        text=words.text,
        value=_value(words),
        trace=read_trace(words, read) if words.kind == "trace" else None,
        grace_seconds=grace,
        away_seconds=words.seconds("away", example="90s"),
        seed=words.seed(),
        speed=speed,
        start_seconds=words.seconds("start", example="2h") or 0.0,
    )


def _value(words: Words) -> float:
    if words.kind == "step":
        if not re.fullmatch(r"\d{1,15}", words.value, re.ASCII):
            raise words.bad(f"{words.value!r} is not a step.", "Steps are whole numbers from 0: step:120.")
        return float(words.value)
    if words.kind == "poisson":
        match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)/(s|m|h|d)", words.value, re.ASCII)
        if match is None or float(match[1]) == 0:
            raise words.bad(f"{words.value!r} is not a rate above 0.", "Write reclaims per time: poisson:3/h@seed=7.")
        return float(match[1]) / _RATE_SECONDS[match[2]]
    if words.kind in ("at", "every"):
        seconds = words.duration()
        if words.kind == "every" and seconds == 0:
            raise words.bad("no attempt could ever train.", "Use more than 0 seconds: every:60s.")
        return seconds
    return math.nan


def read_trace(words: Words, read: Callable[[str], str] | None = None) -> Trace:
    """Return the trace that the item *words* names, a file or ``recorded:NAME``, with its options ``polarity`` and
    ``unit``.

    Raises:
        SpecError: It can't be read, has no form that is known, or leaves open what it means.
    """
    path = words.value
    for option, known in (("polarity", POLARITIES), ("unit", tuple(UNITS))):
        if words.options.get(option, known[0]) not in known:
            raise words.bad(
                f"{option} {words.options[option]!r} is unknown.", f"Write @{option}= and one of {', '.join(known)}."
            )
    name = path.removeprefix(RECORDED_PREFIX)
    if name != path and name not in RECORDED:
        raise words.bad(f"no trace called {name!r} was recorded.", f"There are {', '.join(sorted(RECORDED))}.")
    try:
        text = read_recorded(name) if name != path else (read or _read)(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        others = ", ".join(RECORDED_PREFIX + each for each in sorted(RECORDED))
        raise words.bad(
            f"the file {path!r} can't be read ({reason}).", f"Give a path to a trace file, or one of {others}."
        ) from error
    try:
        return parse_trace(text, polarity=words.options.get("polarity"), unit=words.options.get("unit"))
    except TraceError as error:
        raise words.bad(error.why, error.do) from error
