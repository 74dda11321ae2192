"""Cut a job's history into attempts, by the service's own status sequence. Pure.

The runtime counts attempts by what it finds in its directory, and an attempt that was killed before anything was
mirrored leaves nothing there: two attempts may then call themselves by the same number. The service's transitions are
the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spotproof.contract import TERMINAL_STATUSES
from spotproof.events import AttemptStarted, Event

__all__ = ["Window", "attempt_windows", "by_window", "of_this_job"]

_END_OUTCOMES = {
    "Interrupted": "reclaimed",
    "Uploading": "finished",
    "Completed": "finished",
    "Failed": "failed",
    "Stopping": "stopped",
    "Stopped": "stopped",
    "MaxRuntimeExceeded": "out of time",
    "MaxWaitTimeExceeded": "out of time",
    "Restarting": "restarted",
    "Starting": "restarted",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The time one attempt ran."""

    started_at: datetime | None
    ended_at: datetime | None
    """None while it runs."""
    outcome: str
    """``reclaimed``, ``finished``, ``failed``, ``stopped``, ``out of time``, ``restarted``, or ``running``."""


def attempt_windows(description: Mapping[str, Any], events: Sequence[Event]) -> list[Window]:
    """Return the attempts that trained, in order. Without a status history, the numbers the runtime gave count."""
    transitions = description.get("SecondaryStatusTransitions") or []
    windows: list[Window] = []
    training_since: datetime | None = None
    for transition in transitions:
        status = transition["Status"]
        if status == "Training":
            training_since = training_since or transition["StartTime"]
        elif training_since is not None and status in _END_OUTCOMES:
            outcome = _END_OUTCOMES[status]
            windows.append(Window(started_at=training_since, ended_at=transition["StartTime"], outcome=outcome))
            training_since = None
    if training_since is not None:
        windows.append(Window(started_at=training_since, ended_at=None, outcome="running"))
    if windows and transitions[-1]["Status"] in ("Failed", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded"):
        # A failing job passes through Uploading or Stopping too; its last word says how it ended.
        last = windows[-1]
        if last.outcome != "reclaimed":
            outcome = _END_OUTCOMES[transitions[-1]["Status"]]
            windows[-1] = Window(started_at=last.started_at, ended_at=last.ended_at, outcome=outcome)
    if windows or transitions:
        return windows
    numbers = sorted({event.attempt for event in events})
    spans = [[event.at for event in events if event.attempt == number] for number in numbers]
    return [Window(started_at=min(span), ended_at=max(span), outcome="unknown") for span in spans]


def of_this_job(events: Sequence[Event], description: Mapping[str, Any]) -> list[Event]:
    """Return the events without those of a later job that goes on in the same place."""
    ended_at = description.get("TrainingEndTime")
    if ended_at is None or description.get("TrainingJobStatus") not in TERMINAL_STATUSES:
        return list(events)
    later = [event.at for event in events if isinstance(event, AttemptStarted) and event.at > ended_at]
    return [event for event in events if not later or event.at < min(later)]


def by_window(events: Sequence[Event], windows: Sequence[Window]) -> list[list[Event]]:
    """Return the events of each window, in their order of time.

    A window reaches to the start of the next: the last lines of a killed machine are taken in after its end, but
    well before the next one begins to train. What is older than the first belongs to an earlier job in the same place.
    """
    starts = [window.started_at for window in windows]
    found: list[list[Event]] = [[] for _ in windows]
    for event in sorted(events, key=lambda event: event.at):
        index = sum(1 for start in starts if start is not None and start <= event.at) - 1
        if index >= 0:
            found[index].append(event)
    return found
