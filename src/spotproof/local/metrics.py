"""Metrics out of log lines: MetricDefinitions, and the step that schedules wait for."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from spotproof.contract import STEP_METRIC_NAME, STEP_METRIC_REGEX

__all__ = ["MetricReader", "MetricValue", "compile_definitions", "find_values"]

_NAMED_GROUP: Final = re.compile(r"(?<!\\)\(\?<(?=[A-Za-z])")
_STEP_NAMES: Final = (STEP_METRIC_NAME, "step", "global_step")


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One reading."""

    name: str
    value: float
    at: float
    """Seconds since 1970."""


class MetricReader:
    """Read every line of a job's log; keep the last value of each metric."""

    def __init__(self, definitions: Sequence[Mapping[str, str]]) -> None:
        self._patterns = compile_definitions(definitions)
        names = {name for name, _ in self._patterns}
        self._step_name = next((name for name in _STEP_NAMES if name in names), None)
        self._step_pattern = re.compile(STEP_METRIC_REGEX)
        self.last: dict[str, MetricValue] = {}

    def read(self, line: str, at: float) -> int | None:
        """Take a line's metrics; return the step it reports, if it does."""
        step = None
        for name, value in find_values(self._patterns, line):
            self.last[name] = MetricValue(name, value, at)
            if name == self._step_name:
                step = int(value)
        if self._step_name is None:
            found = _value(self._step_pattern, line)
            step = None if found is None else int(found)
        return step


def compile_definitions(definitions: Iterable[Mapping[str, str]]) -> list[tuple[str, re.Pattern[str]]]:
    """Return names and patterns of a request's MetricDefinitions.

    Named groups may be written as in most languages, ``(?<name>…)``, and as in Python.

    Raises:
        ValueError: One is no regular expression; it says which and why.
    """
    return [(item["Name"], _compile(item)) for item in definitions]


def _compile(definition: Mapping[str, str]) -> re.Pattern[str]:
    try:
        return re.compile(_NAMED_GROUP.sub("(?P<", definition["Regex"]))
    except re.error as error:
        raise ValueError(
            f"Metric definition {definition['Name']!r}: {definition['Regex']!r} is no regular expression ({error})."
        ) from None


def find_values(patterns: Iterable[tuple[str, re.Pattern[str]]], line: str) -> Iterator[tuple[str, float]]:
    """Yield the name and the value of each metric that a line reports."""
    for name, pattern in patterns:
        value = _value(pattern, line)
        if value is not None:
            yield name, value


def _value(pattern: re.Pattern[str], line: str) -> float | None:
    """Return the number in the first group, or in the whole match if there is none."""
    match = pattern.search(line)
    if match is None:
        return None
    try:
        value = float(match[1] if pattern.groups else match[0])
    except (TypeError, ValueError):
        return None
    return value if abs(value) < float("inf") else None  # NaN and infinity have no place in the API's JSON
