"""One training job as a pure state machine: events in, actions out. No clock, no I/O; time comes in the events.

    Starting → Downloading → Training → [Interrupted → Starting → Downloading → Training]* → Uploading
    → Completed or Failed;
    Downloading → Starting, where RetryStrategy allows another try;
    any of them → Stopping → [Uploading] → Stopped (secondary: Stopped, MaxRuntimeExceeded or MaxWaitTimeExceeded)

Source: SageMaker developer guide, "Managed Spot Training in Amazon SageMaker", its list of status sequences; the API
model (TrainingJobStatus, SecondaryStatusTransitions, TrainingTimeInSeconds, BillableTimeInSeconds).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from spotproof.contract import FAILURE_REASON_MAX_CHARS, STOP_GRACE_SECONDS, JobStatus, SecondaryStatus
from spotproof.local import events as ev
from spotproof.local.events import Action, Event
from spotproof.local.statuses import (
    MESSAGES,
    NO_CAPACITY,
    RELAUNCHING,
    REPLACING,
    SERVER_LOST,
    TOO_LONG_PENDING,
    JobRules,
    Transition,
)

__all__ = ["JobState"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ending:
    """How the job will end, decided before it has."""

    status: JobStatus
    secondary: SecondaryStatus
    failure_reason: str | None = None
    has_model: bool = True
    """Whether model.tar.gz is made of what the attempt left."""
    message: str | None = None
    """In place of the status's own."""


@dataclass(slots=True)
class JobState:
    """The job's truth; :meth:`handle` is the only way it changes.

    Instants are seconds since 1970 (UTC), as the API sends them.
    """

    rules: JobRules
    created_at: float
    status: JobStatus = "InProgress"
    transitions: list[Transition] = field(default_factory=list)
    attempt: int = 0
    failure_reason: str | None = None
    training_start_at: float | None = None
    training_end_at: float | None = None
    modified_at: float = 0.0

    _ended_seconds: float = 0.0
    """Running time of the attempts before this one."""
    _running_since: float | None = None
    _hosts_left: set[int] = field(default_factory=set)
    _is_clearing: bool = False
    """Between Kill and HostsGone."""
    _is_reclaimed: bool = False
    """The running attempt's capacity is lost, at once or after its grace."""
    _kill_at: float | None = None
    """End of the grace that SIGTERM began."""
    _ending: _Ending | None = None
    _num_retries: int = 0
    _is_retrying: bool = False
    """Between a failure that is tried again and HostsGone."""

    def to_document(self) -> dict[str, Any]:
        """Return all of it but the rules, as JSON can hold it."""
        return {
            "created_at": self.created_at,
            "status": self.status,
            "transitions": [[item.status, item.start_at, item.message, item.end_at] for item in self.transitions],
            "attempt": self.attempt,
            "failure_reason": self.failure_reason,
            "training_start_at": self.training_start_at,
            "training_end_at": self.training_end_at,
            "modified_at": self.modified_at,
            "ended_seconds": self._ended_seconds,
            "running_since": self._running_since,
            "hosts_left": sorted(self._hosts_left),
            "is_clearing": self._is_clearing,
            "is_reclaimed": self._is_reclaimed,
            "kill_at": self._kill_at,
            "ending": asdict(self._ending) if self._ending is not None else None,
            "num_retries": self._num_retries,
            "is_retrying": self._is_retrying,
        }

    @classmethod
    def from_document(cls, rules: JobRules, document: Mapping[str, Any]) -> "JobState":
        """Return the state that :meth:`to_document` gave.

        Raises:
            KeyError, TypeError: It is not one.
        """
        state = cls(rules, document["created_at"])
        for name in ("status", "attempt", "failure_reason", "training_start_at", "training_end_at", "modified_at"):
            setattr(state, name, document[name])
        for name in ("ended_seconds", "running_since", "is_clearing", "is_reclaimed", "kill_at"):
            setattr(state, f"_{name}", document[name])
        state.transitions = [Transition(*item) for item in document["transitions"]]
        state._hosts_left = set(document["hosts_left"])
        state._ending = _Ending(**document["ending"]) if document["ending"] is not None else None
        state._num_retries, state._is_retrying = document["num_retries"], document["is_retrying"]
        return state

    def start(self) -> list[Action]:
        """Begin; call once, before any event."""
        self._enter("Starting", self.created_at)
        return [ev.RequestCapacity(0)]

    @property
    def secondary(self) -> SecondaryStatus:
        return self.transitions[-1].status

    @property
    def is_terminal(self) -> bool:
        return self.status in ("Completed", "Failed", "Stopped")

    @property
    def is_training(self) -> bool:
        """Whether a reclaim of the running attempt would still take something away."""
        return self.secondary in ("Downloading", "Training") and not self._is_clearing and not self._is_reclaimed

    @property
    def deadline(self) -> float | None:
        """When TimePassed has to come next, unless another event comes first."""
        deadlines = []
        if self._kill_at is not None and not self._is_clearing:
            deadlines.append(self._kill_at)
        if self._ending is None and not self.is_terminal:
            if self._running_since is not None:
                deadlines.append(self._running_since + self._max_run_left)
            if self.rules.max_wait_seconds is not None:
                deadlines.append(self.created_at + self.rules.max_wait_seconds)
            if self._pending_until is not None:
                deadlines.append(self._pending_until)
        return min(deadlines, default=None)

    @property
    def has_kept_files(self) -> bool:
        """Whether what the attempt's hosts hold is still to be uploaded, so that it must outlive the server."""
        return not self.is_terminal and self._ending is not None and not self._is_reclaimed and self._has_trained()

    @property
    def _pending_until(self) -> float | None:
        if self.rules.max_pending_seconds is None or self.training_start_at is not None:
            return None
        return self.created_at + self.rules.max_pending_seconds

    @property
    def _max_run_left(self) -> float:
        return self.rules.max_run_seconds - self._ended_seconds

    def training_seconds(self, now: float) -> int | None:
        """Return TrainingTimeInSeconds: the running time of all attempts; None before the first began."""
        if self.training_start_at is None:
            return None
        running = now - self._running_since if self._running_since is not None else 0.0
        return max(1, math.ceil(self._ended_seconds + running))

    def billable_seconds(self, now: float) -> int | None:
        """Return BillableTimeInSeconds: what is paid for, in on-demand seconds. Never above the training seconds."""
        training = self.training_seconds(now)
        if training is None or not self.rules.is_spot:
            return training
        return min(training, max(1, round(training * self.rules.spot_price_factor)))

    def handle(self, event: Event) -> list[Action]:
        """Apply one event; return what must be done. Events of an attempt that is over change nothing."""
        if self.is_terminal or (isinstance(event, ev.AttemptEvent) and event.attempt != self.attempt):
            return []
        match event:
            case ev.CapacityFound():
                return self._on_capacity(event.at)
            case ev.CapacityMissing():
                return self._on_no_capacity(event.at)
            case ev.Prepared():
                return self._on_prepared(event.at)
            case ev.PreparationFailed():
                return self._on_preparation_failed(event)
            case ev.HostExited():
                return self._on_exit(event)
            case ev.ReclaimDue():
                return self._on_reclaim(event)
            case ev.HostsGone():
                return self._on_gone(event.at)
            case ev.Uploaded():
                return self._finish(event.at) if self.secondary == "Uploading" else []
            case ev.UploadFailed():
                return self._on_upload_failed(event)
            case ev.StopRequested():
                return self._on_stop(event.at, _Ending(status="Stopped", secondary="Stopped"))
            case ev.TimePassed():
                return self._on_time(event.at)
            case ev.ServerLost():
                return self._on_server_lost(event)
        return []

    def _enter(self, secondary: SecondaryStatus, at: float, message: str | None = None) -> None:
        if self.transitions:
            at = max(at, self.transitions[-1].start_at)
            self.transitions[-1].end_at = at
        self.transitions.append(Transition(secondary, at, message or MESSAGES[secondary]))
        self.modified_at = at

    def _on_capacity(self, at: float) -> list[Action]:
        if self.secondary != "Starting":
            return []
        self._running_since = at
        if self.training_start_at is None:
            self.training_start_at = at
        self._enter("Downloading", at)
        return [ev.Prepare(self.attempt)]

    def _on_no_capacity(self, at: float) -> list[Action]:
        # The service, too, changes the message and adds no transition.
        if self.secondary == "Starting" and self.transitions[-1].message != NO_CAPACITY:
            self.transitions[-1].message = NO_CAPACITY
            self.modified_at = max(self.modified_at, at)
        return []

    def _on_prepared(self, at: float) -> list[Action]:
        if self.secondary != "Downloading" or self._is_clearing:
            return []
        self._hosts_left = set(range(self.rules.num_hosts))
        self._enter("Training", at)
        return [ev.Start(self.attempt)]

    def _on_preparation_failed(self, event: ev.PreparationFailed) -> list[Action]:
        if self.secondary != "Downloading" or self._is_clearing:
            return []
        if event.reason.startswith("InternalServerError") and self._num_retries < self.rules.max_retries:
            self._num_retries += 1
            self._is_retrying = True
        else:
            self._ending = _failed(event.reason)
        return self._clear()

    def _on_exit(self, event: ev.HostExited) -> list[Action]:
        if self._is_clearing or event.host not in self._hosts_left:
            return []
        self._hosts_left.discard(event.host)
        is_failure = event.code != 0 and not self._is_reclaimed and self._ending is None
        if is_failure:
            self._ending = _failed(f"AlgorithmError: {event.failure_text}", tail=f", exit code: {event.code}")
        elif self._hosts_left:
            return []
        if self._is_reclaimed:
            return self._lose_capacity(event.at)
        if self._ending is None:
            self._ending = _Ending(status="Completed", secondary="Completed")
        return self._clear()

    def _on_reclaim(self, event: ev.ReclaimDue) -> list[Action]:
        if not self.is_training or not self.rules.is_spot:
            return []
        self._is_reclaimed = True
        if event.grace_seconds <= 0 or self.secondary == "Downloading":
            return self._lose_capacity(event.at)
        # A stop that is already under way keeps its own, earlier or later, end as well.
        until = event.at + event.grace_seconds
        self._kill_at = until if self._kill_at is None else min(self._kill_at, until)
        return [ev.Terminate(self.attempt)]

    def _lose_capacity(self, at: float) -> list[Action]:
        self._stop_running(at)
        if self._ending is None:
            self._enter("Interrupted", at)
        return self._clear()

    def _clear(self) -> list[Action]:
        self._is_clearing = True
        self._kill_at = None
        self._hosts_left = set()
        return [ev.Kill(self.attempt, keep_files=not self._is_reclaimed)]

    def _on_gone(self, at: float) -> list[Action]:
        if not self._is_clearing:
            return []
        self._is_clearing = False
        if self._ending is None:
            return self._next_attempt(at)
        if self._is_reclaimed or not self._has_trained():
            return self._finish(at)
        self._enter("Uploading", at)
        return [ev.Upload(self.attempt, has_model=self._ending.has_model)]

    def _next_attempt(self, at: float) -> list[Action]:
        self._stop_running(at)
        old = self.attempt
        self.attempt += 1
        self._enter("Starting", at, REPLACING if self._is_retrying else RELAUNCHING)
        self._is_reclaimed = self._is_retrying = False
        return [ev.Discard(old), ev.RequestCapacity(self.attempt)]

    def _on_server_lost(self, event: ev.ServerLost) -> list[Action]:
        if self.secondary == "Starting":
            return [ev.RequestCapacity(self.attempt)]
        lost_at = max(event.lost_at, self.transitions[-1].start_at)
        may_upload = self.has_kept_files and event.has_files
        self._stop_running(lost_at)
        self._is_clearing, self._kill_at, self._hosts_left = False, None, set()
        if self._ending is not None and may_upload:
            self._running_since = event.at
            if self.secondary != "Uploading":
                self._enter("Uploading", event.at)
            return [ev.Upload(self.attempt, has_model=self._ending.has_model)]
        if self._ending is not None and self._ending.status != "Completed":
            return self._finish(event.at)
        # What a finished program left is gone: it has to run again, for nothing may be Completed without its results.
        self._ending = None
        if self.secondary != "Interrupted":
            self._enter("Interrupted", lost_at, SERVER_LOST)
        self._is_retrying = False
        return self._next_attempt(event.at)

    def _has_trained(self) -> bool:
        """Whether this attempt's command ever ran, so that there may be something to upload."""
        last_start = max(i for i, t in enumerate(self.transitions) if t.status == "Starting")
        return any(t.status == "Training" for t in self.transitions[last_start:])

    def _on_upload_failed(self, event: ev.UploadFailed) -> list[Action]:
        if self.secondary != "Uploading":
            return []
        if self._ending is None or self._ending.status != "Failed":
            self._ending = _failed(event.reason)
        return self._finish(event.at)

    def _on_stop(self, at: float, ending: _Ending) -> list[Action]:
        if self._ending is not None and self.secondary != "Uploading":
            return []  # it is ending already: the exit that came first decides how
        self.status = "Stopping"
        if self.secondary == "Uploading":
            # The files are there and go up; only a job that succeeded turns into a stopped one.
            if self._ending is not None and self._ending.status == "Completed":
                self._ending = ending
            self.modified_at = at
            return []
        before, self._ending = self.secondary, ending
        self._enter("Stopping", at)
        if self._is_clearing:
            return []
        if before == "Starting":
            return self._finish(at)
        if before == "Downloading":
            return self._clear()
        until = at + STOP_GRACE_SECONDS
        self._kill_at = until if self._kill_at is None else min(self._kill_at, until)
        return [ev.Terminate(self.attempt)]

    def _on_time(self, at: float) -> list[Action]:
        if self._is_clearing:
            return []
        if self._kill_at is not None and at >= self._kill_at:
            return self._lose_capacity(at) if self._is_reclaimed else self._clear()
        if self._ending is not None:
            return []
        if self._running_since is not None and at >= self._running_since + self._max_run_left:
            return self._on_stop(at, _Ending(status="Stopped", secondary="MaxRuntimeExceeded"))
        if self.rules.max_wait_seconds is not None and at >= self.created_at + self.rules.max_wait_seconds:
            return self._on_stop(at, _Ending(status="Stopped", secondary="MaxWaitTimeExceeded"))
        if self._pending_until is not None and at >= self._pending_until:
            return self._on_stop(at, _Ending(status="Stopped", secondary="Stopped", message=TOO_LONG_PENDING))
        return []

    def _stop_running(self, at: float) -> None:
        if self._running_since is not None:
            self._ended_seconds += max(0.0, at - self._running_since)
            self._running_since = None

    def _finish(self, at: float) -> list[Action]:
        assert self._ending is not None
        self._stop_running(at)
        self.status = self._ending.status
        self.failure_reason = self._ending.failure_reason
        self._enter(self._ending.secondary, at, self._ending.message)
        self.transitions[-1].end_at = self.transitions[-1].start_at
        if self.training_start_at is not None:
            self.training_end_at = self.transitions[-1].start_at
        return [ev.Discard(self.attempt)]


def _failed(reason: str, *, tail: str = "") -> _Ending:
    """The exit code stays visible however long the failure file is."""
    text = reason[: FAILURE_REASON_MAX_CHARS - len(tail)] + tail
    return _Ending(status="Failed", secondary="Failed", failure_reason=text, has_model=False)
