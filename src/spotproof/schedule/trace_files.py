"""Recorded traces as researchers publish them, read into one form. Pure: text in, a :class:`Trace` out.

    {"metadata": {"gap_seconds": 300}, "data": [1, 0, …]}   instances available at each tick (spot-traces of SkyPilot)
    0,4 / 21529,12 / …                                      seconds and fleet size at each change (Bamboo); with a
                                                            heading, `seconds,count` or `hours,count`, in its unit
    0,add,node1 / 60000,remove,node3 / …                    milliseconds and what came or went (Parcae's fleet log)
    [0, "add", {"nodes": […], "duration": 60000}] / …       the same by the minute (Parcae's segments)

The same numbers may mean the opposite: the files of the Can't-Be-Late simulator have the first form, but 1 stands for
"preempted" there. What a file leaves open has to be said: ``@polarity=available`` or ``unavailable``, ``@unit=s``,
``ms`` or ``h``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spotproof.schedule.trace import Trace

__all__ = ["POLARITIES", "UNITS", "TraceError", "parse_trace"]

POLARITIES: Final = ("available", "unavailable")
UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_HEADINGS: Final = {"milliseconds": "ms", "seconds": "s", "minutes": "m", "hours": "h"}
"""Of a column of times. Another heading leaves the unit open, and is refused as what is no time."""

_FORM: Final = (
    'A trace is {"metadata": {"gap_seconds": 300}, "data": [1, 1, 0, …]}: instances available at each tick; or lines '
    "of `seconds,count`, of `milliseconds,add|remove,node`, or of Parcae's JSON."
)
_SAY_POLARITY: Final = (
    "Say it: @polarity=available if 1 is an instance that can be had, @polarity=unavailable if 1 is one that can't."
)
_PARCAE_TICK_MS: Final = 60_000


class TraceError(ValueError):
    """What is wrong with a file, and what to do. Who raises it on names the file."""

    def __init__(self, why: str, do: str = _FORM) -> None:
        super().__init__(why)
        self.why, self.do = why, do


def parse_trace(text: str, *, polarity: str | None = None, unit: str | None = None) -> Trace:
    """Return the trace in *text*, of whichever form it is.

    Args:
        text: The file.
        polarity: What a 1 means, of :data:`POLARITIES`; None if the user did not say.
        unit: Of the times in lines of ``time,count``, of :data:`UNITS`; None if the user did not say.

    Raises:
        TraceError: It has none of the forms, or leaves open what it means.
    """
    stripped = text.strip()
    if stripped.startswith("{"):
        _refuse(unit, "unit", "its times are in gap_seconds")
        return _parse_ticks(stripped, polarity)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and lines[0][1].startswith("["):
        _refuse(unit, "unit", "its times are milliseconds")
        _refuse(polarity, "polarity", "it says which nodes came and went")
        return _parse_segments(lines)
    rows = [_Row(number, tuple(cell.strip() for cell in line.split(","))) for number, line in lines]
    if rows and rows[0].cells[0].lower() in _HEADINGS:
        unit = _unit_of(rows.pop(0), unit)
    if not rows:
        raise TraceError("it is empty.")
    if len(rows[0].cells) not in (2, 3):
        raise TraceError("it has none of the forms that are known.")
    other = next((row for row in rows if len(row.cells) != len(rows[0].cells)), None)
    if other is not None:
        raise other.bad(f"{len(other.cells)} cells after lines of {len(rows[0].cells)}: none of the forms has that.")
    if len(rows[0].cells) == 3:
        _refuse(unit, "unit", "its times are milliseconds")
        _refuse(polarity, "polarity", "it says which nodes came and went")
        return _parse_fleet_log(rows)
    if polarity == "unavailable":
        raise TraceError("it holds the sizes of a fleet, which can't be turned round.", "Leave @polarity out.")
    return _parse_sizes(rows, unit)


def _unit_of(heading: "_Row", given: str | None) -> str | None:
    """Return the unit that a file's first line says; None for that of a fleet log, which is always the same."""
    unit = _HEADINGS[heading.cells[0].lower()]
    if given not in (None, unit):
        raise heading.bad(f"its times are {heading.cells[0].lower()}, not @unit={given}.", "Leave @unit out.")
    if len(heading.cells) == 3:
        if unit != "ms":
            raise heading.bad("lines of time,add|remove,node have milliseconds.")
        return None
    return unit


def _refuse(given: str | None, option: str, why: str) -> None:
    if given is not None:
        raise TraceError(f"@{option} has no meaning for it: {why}.", f"Leave @{option} out.")


def _parse_ticks(text: str, polarity: str | None) -> Trace:
    try:
        document = json.loads(text)
        metadata, data = document["metadata"], document["data"]
        gap = metadata["gap_seconds"]
    except (ValueError, RecursionError) as error:
        raise TraceError(f"it is not JSON ({error}).") from error
    except (KeyError, TypeError):
        raise TraceError("it has no metadata.gap_seconds or no data.") from None
    if not isinstance(gap, (int, float)) or isinstance(gap, bool) or not 0 < gap < math.inf:
        raise TraceError(f"its gap_seconds is {gap!r}, not a number above 0.")
    if not isinstance(data, list) or not data:
        raise TraceError("its data is no list of counts, or it is empty.")
    for index, value in enumerate(data):
        if type(value) is not int or value < 0:
            raise TraceError(f"its data has {value!r} at index {index}; counts are whole and from 0. See gap_seconds.")
    has_counts = max(data) > 1
    if polarity == "unavailable":
        if has_counts:
            raise TraceError("it holds counts above 1, which are of instances that can be had.", "Leave @polarity out.")
        data = [1 - value for value in data]
    elif polarity is None and not has_counts and len(metadata) > 1:
        # The published availability files have nothing but their gap; the simulators' turned ones tell more.
        others = ", ".join(sorted(str(name) for name in metadata if name != "gap_seconds"))
        raise TraceError(
            f"its metadata has {others} as well, and in such files 1 often means preempted.", _SAY_POLARITY
        )
    return Trace.from_ticks(float(gap), data)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a file, its cells apart."""

    line: int
    cells: tuple[str, ...]

    def bad(self, why: str, do: str = _FORM) -> TraceError:
        return TraceError(f"line {self.line}: {why}", do)


def _parse_sizes(rows: list[_Row], unit: str | None) -> Trace:
    times, counts = _times([(row.line, row.cells[0]) for row in rows]), [_count(row) for row in rows]
    if unit is None:
        is_whole = all(time == int(time) for time in times)
        is_by_the_minute = all(time % _PARCAE_TICK_MS == 0 for time in times)
        if times[-1] > 0 and (not is_whole or is_by_the_minute):
            raise TraceError(
                "the unit of its times can't be known: they may be seconds, milliseconds or hours.",
                "Say it: @unit=s, @unit=ms (Parcae's) or @unit=h (Bamboo's `scaled` ones).",
            )
        unit = "s"
    seconds = [time * UNITS[unit] for time in times]
    return Trace.from_changes(zip(seconds, counts, strict=True), seconds[-1])


def _parse_fleet_log(rows: list[_Row]) -> Trace:
    times = _times([(row.line, row.cells[0]) for row in rows])
    nodes: set[str] = set()
    changes = []
    for time, row in zip(times, rows, strict=True):
        _apply(row.line, row.cells[1], [row.cells[2]], nodes)
        changes.append((time / 1000, len(nodes)))
    return Trace.from_changes(changes, changes[-1][0])


def _parse_segments(lines: list[tuple[int, str]]) -> Trace:
    nodes: set[str] = set()
    times, changes, end = [], [], 0.0
    for number, line in lines:
        try:
            time, what, told = json.loads(line)
            names = [str(node) for node in told["nodes"]]
            end = (float(time) + float(told["duration"])) / 1000
        except (ValueError, KeyError, TypeError, RecursionError):
            raise TraceError(
                f'line {number}: it is not [milliseconds, "add|remove|no-op", {{"nodes": […], "duration": …}}].'
            ) from None
        _apply(number, what, names, nodes)
        times.append((number, str(time)))
        changes.append((float(time) / 1000, len(nodes)))
    _times(times)
    return Trace.from_changes(changes, end)


def _apply(line: int, what: Any, names: list[str], nodes: set[str]) -> None:
    if what == "add":
        nodes.update(names)
    elif what == "remove":
        nodes.difference_update(names)
    elif what not in ("no-op", "migration"):
        raise TraceError(f"line {line}: {what!r} is none of add, remove, no-op, migration.")


def _times(cells: list[tuple[int, str]]) -> list[float]:
    found: list[float] = []
    for line, cell in cells:
        try:
            time = float(cell)
        except ValueError:
            raise TraceError(f"line {line}: {cell!r} is no time.") from None
        if not math.isfinite(time) or time < (found[-1] if found else 0):
            raise TraceError(f"line {line}: {cell} comes after {found[-1] if found else 0:g}: its times do not rise.")
        found.append(time)
    return found


def _count(row: _Row) -> int:
    cell = row.cells[1]
    if not cell.isascii() or not cell.isdigit():
        raise row.bad(f"{cell!r} is not a count.")
    return int(cell)
