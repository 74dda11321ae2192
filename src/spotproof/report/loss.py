"""Loss against step over several attempts and jobs: the article's picture, as numbers. Pure.

A second run begins where the first stopped; what was computed and lost is there, too, and marked as such.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from spotproof.contract import PROGRESS_LINE_REGEX, STEP_METRIC_NAME
from spotproof.report.attempts import Window, attempt_windows

__all__ = [
    "Curve",
    "Mark",
    "Piece",
    "Point",
    "Reach",
    "choose_metric",
    "curve_of",
    "metric_points",
    "pieces_of",
    "stepless_metrics",
]

_STEP_IN_LINE: Final = re.compile(r"\b(?:global_)?step\s*[=:]?\s*(\d+)\b", re.IGNORECASE)
_LATE: Final = timedelta(minutes=1)
"""The last lines of a log are taken in after the job's end."""
_PREFERRED: Final = ("train_loss", "train:loss", "train_loss_step", "loss", "training_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One logged value."""

    step: int
    value: float
    at: datetime
    is_lost: bool = False
    """Whether its source says that it is superseded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Points of one attempt that stand together: all kept, or all lost."""

    job_name: str
    attempt: int
    is_lost: bool
    """Whether a later attempt computed these steps again."""
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A place on the curve where something happened."""

    step: int
    kind: str
    """``reclaimed`` after this step, or ``resumed`` from it."""
    job_name: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A metric of a chain of jobs."""

    metric: str
    source: str
    """Where the values are from, for people."""
    pieces: tuple[Piece, ...]
    marks: tuple[Mark, ...]


def choose_metric(names: Iterable[str]) -> str | None:
    """Return the name that is most likely the training loss; None if none is a loss."""
    known = [name for name in names if "loss" in name.lower()]
    for wanted in _PREFERRED:
        if wanted in known:
            return wanted
    is_validation = re.compile(r"(^|[_:/.-])(val|valid|validation|test|eval)([_:/.-]|$)", re.IGNORECASE)
    return next((name for name in known if not is_validation.search(name)), known[0] if known else None)


def metric_points(lines: Iterable[tuple[datetime, str]], description: Mapping[str, Any]) -> dict[str, list[Point]]:
    """Return what a job's MetricDefinitions find in its log, by metric.

    A value's step is the one that its line names (``step=120``), else that of the last progress line before it; a value
    before any is left out.
    """
    found: dict[str, list[Point]] = {}
    for name, step, value, at in _values(lines, description):
        if step is not None:
            found.setdefault(name, []).append(Point(step=step, value=value, at=at))
    return found


def stepless_metrics(lines: Iterable[tuple[datetime, str]], description: Mapping[str, Any]) -> set[str]:
    """Return the metrics that :func:`metric_points` has left values out of, because no step is known of them."""
    return {name for name, step, _, _ in _values(lines, description) if step is None}


def _values(
    lines: Iterable[tuple[datetime, str]], description: Mapping[str, Any]
) -> Iterator[tuple[str, int | None, float, datetime]]:
    """Yield name, step, value and time of what the metric definitions find."""
    definitions = (description.get("AlgorithmSpecification") or {}).get("MetricDefinitions") or []
    regexes = []
    for definition in definitions:
        if definition["Name"] == STEP_METRIC_NAME:
            continue
        try:
            regexes.append((definition["Name"], re.compile(definition["Regex"])))
        except re.error:
            continue  # the service's regular expressions are Java's
    progress = re.compile(PROGRESS_LINE_REGEX)
    step: int | None = None
    for at, text in lines:
        told = progress.search(text)
        if told is not None:
            step = int(told[3])
            continue
        named = _STEP_IN_LINE.search(text)
        where = int(named[1]) if named is not None else step
        for name, regex in regexes:
            value = _value_of(regex.search(text))
            if value is not None:
                yield name, where, value, at


def _value_of(found: "re.Match[str] | None") -> float | None:
    if found is None or not found.groups():
        return None
    try:
        return float(found[1])
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """The steps of one attempt, as far as they are known."""

    resumed_from_step: int | None
    last_step: int | None


def curve_of(
    metric: str,
    source: str,
    jobs: Sequence[tuple[Mapping[str, Any], Sequence[Point]]],
    *,
    reaches: Mapping[str, Sequence[Reach]],
) -> Curve:
    """Return the curve of *jobs*, each its description and its points of the metric.

    Args:
        metric: Its name.
        source: Where the points are from, for people.
        jobs: In their order.
        reaches: By job, its attempts; points after the step that a later one went on from are lost.
    """
    attempts: list[tuple[str, int, Window, Reach, list[Point]]] = []
    for index, (description, points) in enumerate(jobs):
        points = _of_this_job(points, description, jobs[index + 1][0] if index + 1 < len(jobs) else None)
        name = str(description.get("TrainingJobName", ""))
        windows = attempt_windows(description, ())
        known = reaches.get(name, ())
        groups = _by_window(points, windows)
        for number, (window, group) in enumerate(zip(windows, groups, strict=True)):
            reach = known[number] if number < len(known) else Reach(resumed_from_step=None, last_step=None)
            attempts.append((name, number, window, reach, group))
    pieces: list[Piece] = []
    marks: list[Mark] = []
    last_kept: Point | None = None
    for index, (name, number, window, reach, group) in enumerate(attempts):
        later = [each.resumed_from_step for _, _, _, each, _ in attempts[index + 1 :]]
        kept_to = min((step for step in later if step is not None), default=None)
        for piece in pieces_of(name, number, group, kept_to=kept_to, begins_at=last_kept):
            pieces.append(piece)
            last_kept = last_kept if piece.is_lost else piece.points[-1]
        end = reach.last_step if reach.last_step is not None else group[-1].step if group else None
        if end is not None and window.outcome == "reclaimed":
            marks.append(Mark(step=end, kind="reclaimed", job_name=name, attempt=number))
        if index > 0 and reach.resumed_from_step is not None:
            marks.append(Mark(step=reach.resumed_from_step, kind="resumed", job_name=name, attempt=number))
    return Curve(metric=metric, source=source, pieces=tuple(pieces), marks=tuple(marks))


def pieces_of(
    job_name: str, attempt: int, points: Sequence[Point], *, kept_to: int | None, begins_at: Point | None = None
) -> list[Piece]:
    """Return the kept and the lost points of one attempt, in this order.

    Args:
        job_name: Of its job.
        attempt: Its number.
        points: Of the attempt.
        kept_to: The last step that was kept; None if all are.
        begins_at: The last point that was kept before it: the line goes on from there.
    """
    ordered = sorted(points, key=lambda point: (point.step, point.at))
    kept: list[Point] = []
    lost: list[Point] = []
    for point in ordered:
        is_lost = point.is_lost or (kept_to is not None and point.step > kept_to)
        (lost if is_lost else kept).append(point)
    pieces = []
    if kept:
        if begins_at is not None and begins_at.step < kept[0].step:
            kept.insert(0, begins_at)
        pieces.append(Piece(job_name=job_name, attempt=attempt, is_lost=False, points=tuple(kept)))
    if lost:
        # So that the faint line hangs on the full one.
        anchor = kept[-1] if kept else begins_at
        begin = [anchor] if anchor is not None and anchor.step < lost[0].step else []
        pieces.append(Piece(job_name=job_name, attempt=attempt, is_lost=True, points=(*begin, *lost)))
    return pieces


def _of_this_job(
    points: Sequence[Point], description: Mapping[str, Any], following: Mapping[str, Any] | None
) -> list[Point]:
    """Return the points without those of later jobs that log to the same place."""
    ended_at = description.get("TrainingEndTime")
    end = following.get("CreationTime") if following is not None else ended_at and ended_at + _LATE
    return [point for point in points if end is None or point.at < end]


def _by_window(points: Sequence[Point], windows: Sequence[Window]) -> list[list[Point]]:
    groups: list[list[Point]] = [[] for _ in windows]
    starts = [window.started_at for window in windows]
    for point in sorted(points, key=lambda point: point.at):
        index = sum(1 for start in starts if start is not None and start <= point.at) - 1
        if index >= 0:
            groups[index].append(point)
    return groups
