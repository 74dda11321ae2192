"""Following a job: what happened between two looks is told in the order of time."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from spotproof.errors import LaunchError
from spotproof.events import Progress, progress_line
from spotproof.launch import LogLine
from spotproof.rehearsal import StatusChanged, Stepped, watch_job
from spotproof.rehearsal.watch import WatchedJob, check_completed

ZERO = datetime(2026, 1, 1, tzinfo=timezone.utc)


class ScriptedService:
    """Gives all transitions at one look and all lines at one reading, as after a slow network."""

    def __init__(self, transitions: list[tuple[str, float]], lines: list[tuple[str, float]]) -> None:
        self._transitions = [
            {"Status": status, "StartTime": ZERO + timedelta(seconds=seconds)} for status, seconds in transitions
        ]
        self._lines = [
            LogLine(at=ZERO + timedelta(seconds=seconds), host="algo-1", message=text) for text, seconds in lines
        ]

    def open_logs(self, job_name: str) -> "ScriptedService":
        return self

    def read_new(self) -> list[LogLine]:
        lines, self._lines = self._lines, []
        return lines

    def wait(
        self, job_name: str, *, on_change: Callable[[dict[str, Any]], None], on_poll: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        for transition in self._transitions:
            on_change(transition)
        on_poll({})
        return {"TrainingJobName": job_name, "TrainingJobStatus": "Completed"}


def step(attempt: int, number: int) -> str:
    return progress_line(Progress(attempt=attempt, epoch=0, step=number))


def test_one_look_may_bring_a_whole_restart() -> None:
    """Lines before, between and after the transitions of a reclaim are told where they belong."""
    service = ScriptedService(
        [("Training", 1), ("Interrupted", 3), ("Starting", 3.1), ("Training", 5), ("Completed", 8)],
        [("hello", 1.5), (step(0, 7), 2.9), (step(0, 8), 3.05), (step(1, 5), 6)],
    )
    told: list[object] = []

    watched = watch_job(service, "j", told.append)  # type: ignore[arg-type]

    short = [
        (event.status, event.attempt, event.last_step) if isinstance(event, StatusChanged) else event.step
        for event in told
        if isinstance(event, (StatusChanged, Stepped))
    ]
    assert short == [
        ("Training", 0, None),
        7,
        ("Interrupted", 0, 7),
        8,
        ("Starting", 0, 8),
        ("Training", 1, 8),
        5,
        ("Completed", 1, 5),
    ]
    assert [event.attempt for event in told if isinstance(event, Stepped)] == [0, 0, 1]
    assert list(watched.log_tail) == ["hello"]


def test_failed_job_carries_reason_and_log() -> None:
    """What the service says and the end of the job's own log are in the error."""
    job = WatchedJob(
        description={"TrainingJobName": "j", "TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: x"}
    )
    job.log_tail.append("ValueError: [bad]")

    with pytest.raises(LaunchError, match=r"(?s)j ended Failed: AlgorithmError: x.*\| ValueError: \[bad\]"):
        check_completed(job)
