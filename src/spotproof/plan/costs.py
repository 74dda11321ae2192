"""What interrupting a job costs: measured by a rehearsal or a job, else assumed, and marked so. Pure."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["ASSUMED", "Costs", "Figure", "costs_of"]

Source = Literal["measured", "given", "assumed"]

ASSUMED: Final[Mapping[str, float]] = {
    "stall_seconds": 1.0,
    "slowdown_seconds": 0.0,
    "commit_seconds": 10.0,
    "mirror_seconds": 30.0,
    "platform_seconds": 240.0,
    "warm_up_seconds": 60.0,
}
"""Reckoned with where nothing was measured. SageMaker publishes neither how long a start takes nor how far its mirror
is behind; a rehearsal can't know them either, for they are the platform's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A number and where it comes from."""

    value: float
    source: Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """All that a save and a reclaim cost, in seconds."""

    stall_seconds: Figure
    """A save: training stands still."""
    slowdown_seconds: Figure
    """A save: steps are slower while it is written, all together."""
    commit_seconds: Figure
    """From the end of the stall to the commit on the machine."""
    mirror_seconds: Figure
    """From there until it is in S3. 0 for a program that saves to S3 itself."""
    platform_seconds: Figure
    """From a machine being there to Training: boot, image, inputs, checkpoints."""
    warm_up_seconds: Figure
    """From Training to the first new step: imports, set-up, restore."""
    seconds_per_step: Figure | None
    """None if it is not known."""

    @property
    def save_seconds(self) -> float:
        """Return what a save takes from training."""
        return self.stall_seconds.value + self.slowdown_seconds.value

    @property
    def durable_seconds(self) -> float:
        """Return how long after its stall a save survives a reclaim."""
        return self.commit_seconds.value + self.mirror_seconds.value

    @property
    def start_seconds(self) -> float:
        """Return how long a start takes."""
        return self.platform_seconds.value + self.warm_up_seconds.value


def costs_of(report: Mapping[str, Any] | None, given: Mapping[str, float | None]) -> Costs:
    """Return the costs to reckon with: what was given, else what was measured, else what is assumed.

    Args:
        report: A summary as ``rehearse``, ``report`` or :func:`spotproof.report.to_json` give it; None without one.
        given: By the names of :data:`ASSUMED`, and ``seconds_per_step``; None for what is not given.
    """
    measured = _measured(report or {})

    def figure(name: str) -> Figure | None:
        value = given.get(name)
        if value is not None:
            return Figure(value=value, source="given")
        if name in measured:
            return Figure(value=measured[name], source="measured")
        return Figure(value=ASSUMED[name], source="assumed") if name in ASSUMED else None

    known = {name: figure(name) for name in ASSUMED}
    return Costs(**known, seconds_per_step=figure("seconds_per_step"))  # type: ignore[arg-type]


def _measured(report: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, place in (("stall_seconds", "stall_seconds"), ("commit_seconds", "durable_seconds")):
        spread = report.get(place)
        if isinstance(spread, Mapping) and isinstance(spread.get("p50"), (int, float)):
            found[name] = float(spread["p50"])
    attempts = [attempt for attempt in report.get("attempts") or [] if isinstance(attempt, Mapping)]
    restarts = [attempt for attempt in attempts if attempt.get("resumed_from_step")]
    for name, place, several in (
        ("warm_up_seconds", "start_up_seconds", restarts or attempts),
        ("seconds_per_step", "seconds_per_step", attempts),
    ):
        values = [float(each[place]) for each in several if isinstance(each.get(place), (int, float))]
        if values:
            found[name] = statistics.median(values)
    slowdown = report.get("slowdown_seconds")
    if isinstance(slowdown, (int, float)):
        found["slowdown_seconds"] = float(slowdown)
    return {name: value for name, value in found.items() if value >= 0}
