"""Follow one job to its end: status, log and steps together."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from spotproof.errors import LaunchError
from spotproof.events import Progress, parse_progress_line
from spotproof.launch import LogLine, TrainingService
from spotproof.rehearsal.progress import JobEnded, OnProgress, StatusChanged, Stepped

__all__ = ["WatchedJob", "check_completed", "watch_job"]

_TAIL_LINES = 25


@dataclass(kw_only=True)
class WatchedJob:
    """A job that has ended, and what its log told."""

    description: dict[str, Any] = field(default_factory=dict)
    progress: list[Progress] = field(default_factory=list)
    log_tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    """The last lines of the log, without the progress lines."""


def watch_job(service: TrainingService, job_name: str, on_progress: OnProgress) -> WatchedJob:
    """Block until the job has ended, telling each status and step; return what was seen.

    Raises:
        LaunchError: There is no such job, or the service went away.
    """
    watched = WatchedJob()
    logs = service.open_logs(job_name)
    attempt = -1
    pending: list[dict[str, Any]] = []

    def tell_line(line: LogLine) -> None:
        progress = parse_progress_line(line.message, line.at)
        if progress is None:
            watched.log_tail.append(line.message.rstrip())
            return
        watched.progress.append(progress)
        on_progress(Stepped(job_name=job_name, attempt=max(attempt, 0), epoch=progress.epoch, step=progress.step))

    def tell_transition(transition: dict[str, Any]) -> None:
        nonlocal attempt
        attempt += transition["Status"] == "Training"
        on_progress(
            StatusChanged(
                job_name=job_name,
                at=transition["StartTime"],
                status=transition["Status"],
                message=transition.get("StatusMessage", ""),
                attempt=max(attempt, 0),
                last_step=watched.progress[-1].step if watched.progress else None,
            )
        )

    def tell_what_is_new() -> None:
        """Several things may have happened since the last look: tell them in the order of time."""
        # The log is read after the status, so that what was printed before a change is told before it.
        found: list[tuple[datetime, LogLine | dict[str, Any]]] = [(line.at, line) for line in logs.read_new()]
        found += [(transition["StartTime"], transition) for transition in pending]
        pending.clear()
        for _, item in sorted(found, key=lambda pair: pair[0]):
            if isinstance(item, LogLine):
                tell_line(item)
            else:
                tell_transition(item)

    watched.description = service.wait(job_name, on_change=pending.append, on_poll=lambda _: tell_what_is_new())
    tell_what_is_new()
    on_progress(JobEnded(job_name=job_name, status=watched.description["TrainingJobStatus"]))
    return watched


def check_completed(job: WatchedJob) -> None:
    """Return if the job ended Completed.

    Raises:
        LaunchError: It did not; carries the service's reason and the end of the job's own log.
    """
    name, status = job.description["TrainingJobName"], job.description["TrainingJobStatus"]
    if status == "Completed":
        return
    reason = job.description.get("FailureReason") or job.description.get("SecondaryStatus", "")
    tail = "\n".join(f"  | {line}" for line in job.log_tail) or "  | (it printed nothing)"
    raise LaunchError(
        f"Job {name} ended {status}: {reason}",
        why=f"\nIts log ends so:\n{tail}\n",
        do="Correct the program and start again." if status == "Failed" else "Give it a longer max_run and max_wait.",
    )
