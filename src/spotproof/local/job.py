"""One job at work: the thin shell around its state machine.

Events come from the API, from hosts' output and ends, from worker threads and from the clock. Each is applied and saved
under one lock, and the actions that follow are begun before the lock is let go; none of them blocks. So a reclaim that
a log line causes is on its way before the thread that read the line does anything else, and whatever has been begun is
in the store: a server that is killed here finds out there.

A job has threads, files and an attempt only while it holds instances.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from spotproof import contract
from spotproof.errors import EngineError
from spotproof.local import events as ev
from spotproof.local.attempt import Attempt
from spotproof.local.capacity import Capacity
from spotproof.local.describe import describe
from spotproof.local.output import JobOutput
from spotproof.local.reclaims import Reclaims
from spotproof.local.request import JobPlan
from spotproof.local.staging import Surroundings
from spotproof.local.state import JobState
from spotproof.schedule import Schedule

__all__ = ["Job", "JobRoom"]

_SHORTEST_WAIT_SECONDS: Final = 0.002
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRoom:
    """What all jobs of a platform share."""

    around: Surroundings
    logs_dir: Path
    capacity: Capacity
    capacity_wait_seconds: float
    """Between a reclaim and the next attempt."""
    set_alarm: Callable[[str, float], None]
    """Have :meth:`Job.on_time` of the named job called at an instant."""
    hurry: Callable[[str], None]
    """Have it called now, whatever is set."""
    save: Callable[["Job"], None]
    """Keep the job as it is now."""
    retire: Callable[["Job"], None]
    """The job has ended and left nothing behind."""


class Job:
    """A job from its creation to its end. All methods may be called from any thread."""

    def __init__(self, plan: JobPlan, room: JobRoom, schedule: Schedule, *, log_stamp: int, state: JobState) -> None:
        self.plan = plan
        self._room, self._state = room, state
        self.reclaims = Reclaims(
            schedule,
            num_hosts=plan.rules.num_hosts,
            is_spot=plan.rules.is_spot,
            created_at=state.created_at,
            capacity_wait_seconds=room.capacity_wait_seconds,
        )
        self._output = JobOutput(
            room.logs_dir / plan.name,
            plan.metric_definitions,
            num_hosts=plan.rules.num_hosts,
            stamp=log_stamp,
        )
        self._attempt: Attempt | None = None
        self._is_closed = False
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []

    @classmethod
    def create(cls, plan: JobPlan, room: JobRoom, schedule: Schedule) -> tuple["Job", list[ev.Action]]:
        """Return a new job, and what :meth:`begin` is to do once it is kept."""
        now = time.time()
        state = JobState(plan.rules, now)
        actions = state.start()
        return cls(plan, room, schedule, log_stamp=int(now * 1000), state=state), actions

    @classmethod
    def load(cls, plan: JobPlan, room: JobRoom, schedule: Schedule, saved: Mapping[str, Any]) -> "Job":
        """Return the job as :meth:`to_document` gave it; :meth:`recover` is next.

        Raises:
            KeyError, IndexError, TypeError, ValueError: It did not.
        """
        state = JobState.from_document(plan.rules, saved["state"])
        job = cls(plan, room, schedule, log_stamp=saved["log_stamp"], state=state)
        job.reclaims.load(saved["reclaims"])
        job._output.load(saved, since=state.transitions[-1].start_at)
        return job

    def to_document(self) -> dict[str, Any]:
        """Return what outlives the server, as JSON can hold it."""
        with self._lock:
            return {
                "state": self._state.to_document(),
                "reclaims": self.reclaims.to_document(),
                **self._output.to_document(),
            }

    def begin(self, actions: list[ev.Action]) -> None:
        """Do what is to be done first."""
        with self._lock:
            self._do_all(actions)

    def recover(self, lost_at: float, *, has_files: bool) -> list[ev.Action]:
        """Find oneself again after the server had ended at *lost_at*; return what :meth:`begin` is to do.

        Args:
            lost_at: When it was last known to live.
            has_files: Whether hosts' directories can be trusted to be as their processes left them.
        """
        with self._lock:
            now = time.time()
            attempt = self._make_attempt(self._state.attempt) if self._state.has_kept_files else None
            has_files = has_files and attempt is not None and attempt.is_on_disk
            self.reclaims.end_training(lost_at)
            if self.secondary not in ("Interrupted", "Starting"):
                self.reclaims.set_away(None)  # it is no reclaim that took these machines
            actions = self._state.handle(ev.ServerLost(now, lost_at, has_files))
            if attempt is not None and any(isinstance(action, ev.Upload) for action in actions):
                self._attempt = attempt
            _log.info("job %s: attempt=%d %s after a restart", self.plan.name, self._state.attempt, self.secondary)
            self._room.save(self)
            if self._state.is_terminal:
                self._spawn("end", self._end, None)
            return actions

    @property
    def status(self) -> contract.JobStatus:
        return self._state.status

    @property
    def secondary(self) -> contract.SecondaryStatus:
        return self._state.secondary

    @property
    def is_terminal(self) -> bool:
        return self._state.is_terminal

    @property
    def has_kept_files(self) -> bool:
        """Whether its hosts' directories are to outlive the server."""
        return self._state.has_kept_files

    @property
    def waiting_since(self) -> float:
        """The instant of the last transition: among jobs that wait, who came first."""
        return self._state.transitions[-1].start_at

    def describe(self) -> dict[str, Any]:
        """Return the job as DescribeTrainingJob does."""
        with self._lock:
            return describe(self.plan, self._state, self._output.metrics, time.time())

    def update(self, changes: Mapping[str, Any]) -> None:
        """Take over members of the request that UpdateTrainingJob may change."""
        with self._lock:
            self.plan = replace(self.plan, request={**self.plan.request, **changes})

    def stop(self) -> bool:
        """Begin to stop; return whether the job was in progress."""
        with self._lock:
            if self._state.status != "InProgress":
                return False
            self._post(ev.StopRequested(time.time()))
            return True

    def reclaim(
        self, grace_seconds: float = 0.0, away_seconds: float | None = None, *, host: int | None = None
    ) -> int | None:
        """Take the running attempt's capacity; return its number, or None if there is none to take.

        Args:
            grace_seconds: Between SIGTERM and SIGKILL; 0 for SIGKILL alone.
            away_seconds: Until there is capacity again; None for as long as the platform is set to.
            host: From 0; the machine that is lost at once, while those of the others are after the grace.
        """
        with self._lock:
            if not (self.plan.rules.is_spot and self._state.is_training):
                return None
            attempt = self._state.attempt
            _log.info("job %s: attempt=%d reclaimed by request", self.plan.name, attempt)
            self.reclaims.set_away(away_seconds)
            if host is not None and self._attempt is not None:
                self._attempt.lose(host)  # first: it gets no notice. Its exit is seen after this lock is let go
            self._post(ev.ReclaimDue(time.time(), attempt, grace_seconds))
            return attempt

    def close(self) -> None:
        """Let the job go with the server: its hosts are killed, nothing more happens, and the store has it as it is."""
        with self._lock:
            self._is_closed = True
            attempt = self._attempt
            if attempt is not None:
                attempt.kill(keep_files=False)
        if attempt is not None:
            attempt.wait_gone()
        for thread in list(self._threads):
            thread.join()
        if attempt is not None:
            attempt.wait_abandoned()
        self._output.close()

    def on_time(self) -> None:
        """Do what the time asks for, and set the next alarm."""
        with self._lock:
            if self._is_closed or self._state.is_terminal:
                return
            now = time.time()
            if self._state.deadline is not None and now >= self._state.deadline:
                self._post(ev.TimePassed(now))
            self._check_schedule(now)
            self._check_capacity(now)
            self._set_alarm()

    def _make_environment(self) -> dict[str, str]:
        environment = {
            **self._room.around.read_environment(),
            contract.ENV_JOB_NAME: self.plan.name,
            contract.ENV_JOB_ARN: self.plan.arn,
        }
        if self.reclaims.schedule.has_steps:
            environment[contract.ENV_PROGRESS_SECONDS] = "0"
        return {**environment, **self.plan.request.get("Environment", {})}

    def _post(self, event: ev.Event) -> None:
        with self._lock:
            if self._is_closed or self._state.is_terminal:
                return
            before, secondary = self._state.to_document(), self._state.secondary
            actions = self._state.handle(event)
            if secondary == "Training" and self._state.secondary != "Training":
                self.reclaims.end_training(event.at)
            if any(isinstance(action, ev.Start) for action in actions):
                self.reclaims.begin_training(event.at)
            if self._state.secondary != secondary:
                _log.info("job %s: attempt=%d %s", self.plan.name, self._state.attempt, self._state.secondary)
            if self._state.to_document() != before:
                self._room.save(self)
            self._do_all(actions)
            if self._state.is_terminal:
                self._spawn("end", self._end, self._attempt)

    def _do_all(self, actions: list[ev.Action]) -> None:
        for action in actions:
            self._do(action)
        self._set_alarm()

    def _do(self, action: ev.Action) -> None:
        attempt = self._attempt
        match action:
            case ev.RequestCapacity():
                self.reclaims.request_capacity(action.attempt, self.waiting_since)
            case ev.Prepare():
                self._attempt = self._make_attempt(action.attempt)
                self._spawn("prepare", self._prepare, self._attempt)
            case ev.Start() if attempt is not None:
                attempt.start()
            case ev.Terminate() if attempt is not None:
                attempt.terminate()
            case ev.Kill() if attempt is not None:
                attempt.kill(keep_files=action.keep_files)
                self._spawn("gone", self._wait_gone, attempt, action.keep_files)
            case ev.Upload() if attempt is not None:
                self._spawn("upload", self._upload, attempt, action.has_model)
            case ev.Discard():
                self._release()
                if attempt is not None and attempt.number == action.attempt and not self._state.is_terminal:
                    self._spawn("discard", attempt.discard)

    def _release(self) -> None:
        for name in self._room.capacity.release(self.plan.name):
            self._room.hurry(name)

    def _spawn(self, what: str, target: Callable[..., None], *args: Any) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=target, args=args, name=f"{self.plan.name} {what}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _make_attempt(self, number: int) -> Attempt:
        return Attempt(
            number,
            self.plan,
            self._room.around,
            self._make_environment(),
            on_output=lambda host, data: self._on_output(number, host, data),
            on_exit=lambda host, code, text: self._post(ev.HostExited(time.time(), number, host, code, text)),
        )

    def _prepare(self, attempt: Attempt) -> None:
        try:
            attempt.prepare()
        except InterruptedError:
            return  # killed: whoever did it waits for the hosts to be gone
        except FileNotFoundError as error:
            reason = f"ClientError: Data download failed: {error}"
        except (OSError, EngineError) as error:
            reason = f"InternalServerError: {error}"
        except Exception as error:  # the job must end Failed and not hang, whatever is broken here
            _log.exception("job %s: attempt=%d could not be prepared", self.plan.name, attempt.number)
            reason = f"InternalServerError: {type(error).__name__}: {error}"
        else:
            self._post(ev.Prepared(time.time(), attempt.number))
            return
        _log.warning("job %s: attempt=%d could not be prepared: %s", self.plan.name, attempt.number, reason)
        self._post(ev.PreparationFailed(time.time(), attempt.number, reason))

    def _wait_gone(self, attempt: Attempt, keep_files: bool) -> None:
        attempt.wait_gone()
        self._take_lines(attempt.number, self._output.end_lines(time.time()))
        if not keep_files:
            attempt.wait_abandoned()
        self._post(ev.HostsGone(time.time(), attempt.number))

    def _upload(self, attempt: Attempt, has_model: bool) -> None:
        try:
            if not attempt.is_prepared:  # of before the server's restart
                attempt.find_again(max(t.start_at for t in self._state.transitions if t.status == "Training"))
            attempt.upload(has_model=has_model)
        except Exception as error:  # the job must end Failed and not hang in Uploading
            if not isinstance(error, OSError):
                _log.exception("job %s: artifacts could not be uploaded", self.plan.name)
            reason = f"ClientError: Artifact upload failed: {error}"
            self._post(ev.UploadFailed(time.time(), attempt.number, reason))
        else:
            self._post(ev.Uploaded(time.time(), attempt.number))

    def _end(self, attempt: Attempt | None) -> None:
        """Leave nothing behind: no thread, no file, no attempt."""
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join()
        if attempt is not None:
            attempt.discard()
        self._output.close()
        with self._lock:
            self._attempt = None
        self._room.retire(self)

    def _on_output(self, attempt: int, host: int, data: bytes) -> None:
        self._take_lines(attempt, self._output.write(host, data, time.time()))

    def _take_lines(self, attempt: int, lines: list[str]) -> None:
        for line in lines:
            now = time.time()
            with self._lock:
                step = self._output.read(line, now)
                if step is not None and attempt == self._state.attempt:
                    self.reclaims.take_step(step)
                    self._check_schedule(now)

    def _check_schedule(self, now: float) -> None:
        if not (self._state.secondary == "Training" and self._state.is_training):
            return
        attempt = self._state.attempt
        reclaim = self.reclaims.due(attempt, now)
        if reclaim is None:
            return
        _log.info("job %s: attempt=%d reclaimed by %s", self.plan.name, attempt, reclaim.cause)
        self._post(ev.ReclaimDue(now, attempt, reclaim.grace_seconds))

    def _check_capacity(self, now: float) -> None:
        """Take the place in the queue, or the instances once it is the job's turn."""
        if self._state.secondary != "Starting":
            return
        is_asking = self.reclaims.seconds_to_capacity(now) <= 0
        if is_asking:
            self.reclaims.take_capacity()
            self._room.capacity.ask(self.plan.name, self.plan.rules.num_hosts)
        if not self._room.capacity.has(self.plan.name):
            if is_asking:
                self._post(ev.CapacityMissing(now, self._state.attempt))
        elif self.reclaims.seconds_to_supply(now) > 0:
            # While it stood in the queue the schedule's own capacity has gone: back to the end.
            self._release()
            self.reclaims.request_capacity(0, now)
        else:
            self._post(ev.CapacityFound(now, self._state.attempt))

    def _set_alarm(self) -> None:
        """Have :meth:`on_time` called when time alone may change something."""
        if self._is_closed or self._state.is_terminal:
            return
        now = time.time()
        waits = [self.reclaims.seconds_to_capacity(now)]
        if self._state.deadline is not None:
            waits.append(self._state.deadline - now)
        if self._state.secondary == "Training" and self._state.is_training:
            waits.append(self.reclaims.seconds_to_next(self._state.attempt, now))
        # What is due already, but can't be done before the hosts are gone, must not keep the clock busy.
        self._room.set_alarm(self.plan.name, now + max(min(waits), _SHORTEST_WAIT_SECONDS))
