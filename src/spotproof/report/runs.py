"""The attempts of a job with their events, and what follows from them: steps lost, time that was useful. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from spotproof.events import AttemptEnded, AttemptStarted, CheckpointCommitted, Event, Progress, Resumed
from spotproof.report.attempts import Window

__all__ = [
    "Run",
    "finish_seconds",
    "lost_seconds",
    "lost_steps",
    "seconds_between",
    "seconds_per_step",
    "undisturbed_seconds",
    "useful_seconds",
]


class Run:
    """One attempt's window and events, and what follows from them."""

    def __init__(self, window: Window, events: Sequence[Event]) -> None:
        self.window = window
        self.events = events
        resumed = self.of(Resumed)
        progress = sorted(self.of(Progress), key=lambda event: (event.step, event.at))
        self.steps: dict[int, datetime] = {}
        for event in progress:
            self.steps.setdefault(event.step, event.at)
        reached = [event.step for event in (*progress, *self.of(AttemptEnded), *self.of(CheckpointCommitted), *resumed)]
        self.last_step = max(reached, default=None)
        if resumed:
            self.start_step: int | None = resumed[-1].step
        else:  # killed before it could tell, or not mirrored: the first line of the log says where training begins
            self.start_step = min(self.steps, default=0 if self.of(AttemptStarted) else None)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ready_at(self) -> datetime | None:
        """When its first step began: the first progress is told there."""
        return min((event.at for event in self.of(Progress)), default=None)

    def time_of(self, step: int) -> datetime | None:
        """When *step* was completed, or the nearest step before it that is known (progress is not told at each)."""
        known = [number for number in self.steps if number <= step]
        return self.steps[max(known)] if known else None


def lost_steps(runs: Sequence[Run], index: int) -> int:
    """Return the steps of one attempt that the next one that started training computed again."""
    last = runs[index].last_step
    following = next((run.start_step for run in runs[index + 1 :] if run.start_step is not None), None)
    return 0 if last is None or following is None else max(0, last - following)


def lost_seconds(runs: Sequence[Run], lost: Sequence[int]) -> float | None:
    """Return the time that lost steps took; None if an attempt lost some and its pace is not known."""
    if not any(run.events for run in runs):
        return None
    paces = [seconds_per_step(run) for run in runs]
    if any(count and pace is None for count, pace in zip(lost, paces, strict=True)):
        return None
    return sum(count * (pace or 0.0) for count, pace in zip(lost, paces, strict=True))


def useful_seconds(runs: Sequence[Run]) -> float | None:
    """Return the time spent on steps that the final model is made of; None if no progress is known."""
    total, has_progress = 0.0, False
    for index, run in enumerate(runs):
        begin = run.ready_at
        if begin is None or not run.steps:
            continue
        has_progress = True
        # A later attempt may have gone back behind this one altogether: then nothing of it lives on.
        kept_to = min((later.start_step for later in runs[index + 1 :] if later.start_step is not None), default=None)
        end = max(run.steps.values()) if kept_to is None else run.time_of(kept_to)
        if end is not None:
            total += max(0.0, (end - begin).total_seconds())
    return total if has_progress else None


def undisturbed_seconds(
    description: Mapping[str, Any], undisturbed: Mapping[str, Any] | None, runs: Sequence[Run]
) -> tuple[float | None, str | None]:
    """Return the running time of one undisturbed run and where the figure comes from.

    It is measured if it was run. Else it is estimated: one start-up, the steps from where the job began to where it
    ended at the median pace of its attempts, and its end.
    """
    if undisturbed is not None:
        measured = undisturbed.get("TrainingTimeInSeconds")
        return (float(measured), "measured") if measured is not None else (None, None)
    if description.get("TrainingJobStatus") != "Completed" or not runs:
        return None, None
    first, last = runs[0], runs[-1]
    paces = [pace for pace in (seconds_per_step(run) for run in runs) if pace is not None]
    start_up = seconds_between(first.window.started_at, first.ready_at)
    finish = finish_seconds(description, runs)
    if not paces or start_up is None or finish is None or last.last_step is None:
        return None, None
    num_steps = last.last_step - (first.start_step or 0)
    return start_up + num_steps * statistics.median(paces) + finish, "estimated"


def finish_seconds(description: Mapping[str, Any], runs: Sequence[Run]) -> float | None:
    """Return the time from the last step to the job's end."""
    last_at = max(runs[-1].steps.values(), default=None) if runs else None
    return seconds_between(last_at, description.get("TrainingEndTime"))


def seconds_per_step(run: Run) -> float | None:
    if len(run.steps) < 2:
        return None
    low, high = min(run.steps), max(run.steps)
    return (run.steps[high] - run.steps[low]).total_seconds() / (high - low)


def seconds_between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else (end - begin).total_seconds()
