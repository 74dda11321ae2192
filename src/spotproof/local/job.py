"""One job at work: the thin shell around its state machine.

Events come from the API, from hosts' output and ends, from worker threads and from the clock. Each is applied under one
lock, and the actions that follow are begun before the lock is let go; none of them blocks. So a reclaim that a log line
causes is on its way before the thread that read the line does anything else.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from spotproof import contract
from spotproof.errors import EngineError
from spotproof.local import events as ev
from spotproof.local.attempt import Attempt, Surroundings
from spotproof.local.describe import describe
from spotproof.local.logs import LogWriter
from spotproof.local.metrics import MetricReader
from spotproof.local.request import JobPlan
from spotproof.local.state import JobState
from spotproof.schedule import Moment, Schedule

__all__ = ["Job"]

_SHORTEST_WAIT_SECONDS: Final = 0.001
_log = logging.getLogger(__name__)


class Job:
    """A job from its creation to its end. All methods may be called from any thread."""

    def __init__(
        self, plan: JobPlan, around: Surroundings, schedule: Schedule, logs_dir: Path, *, capacity_wait_seconds: float
    ) -> None:
        self.plan = plan
        self._around = around
        self._capacity_wait_seconds = capacity_wait_seconds
        now = time.time()
        self._state = JobState(plan.rules, now)
        self._replay = (
            schedule.replay(plan.rules.num_hosts) if plan.rules.is_spot else Schedule(text="none", items=()).replay(1)
        )
        self._environment = self._make_environment(is_each_step_wanted=plan.rules.is_spot and schedule.has_steps)
        self._metrics = MetricReader(plan.metric_definitions)
        stamp = int(now * 1000)
        names = [f"algo-{index + 1}-{stamp}.log" for index in range(plan.rules.num_hosts)]
        self._log_paths = [logs_dir / plan.name / name for name in names]
        self._logs: dict[int, LogWriter] = {}
        self._attempt: Attempt | None = None
        self._capacity_at: float | None = None
        self._step: int | None = None
        self._first_training_at: float | None = None
        self._attempt_training_at: float | None = None
        self._trained_seconds = 0.0
        self._is_closed = False
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        with self._lock:
            self._do_all(self._state.start())
            self._spawn("clock", self._run_clock)

    def describe(self) -> dict[str, Any]:
        """Return the job as DescribeTrainingJob does."""
        with self._lock:
            return describe(self.plan, self._state, list(self._metrics.last.values()), time.time())

    @property
    def status(self) -> contract.JobStatus:
        with self._lock:
            return self._state.status

    def stop(self) -> bool:
        """Begin to stop; return whether the job was in progress."""
        with self._lock:
            if self._state.status != "InProgress":
                return False
            self._post(ev.StopRequested(time.time()))
            return True

    def reclaim(self, grace_seconds: float = 0.0) -> int | None:
        """Take the running attempt's capacity; return its number, or None if there is none to take."""
        with self._lock:
            if not (self.plan.rules.is_spot and self._state.is_training):
                return None
            attempt = self._state.attempt
            _log.info("job %s: attempt=%d reclaimed by request", self.plan.name, attempt)
            self._post(ev.ReclaimDue(time.time(), attempt, grace_seconds))
            return attempt

    def close(self) -> None:
        """End the job with the server: its hosts are killed and discarded, and nothing more happens."""
        with self._lock:
            self._is_closed = True
            attempt = self._attempt
            if attempt is not None:
                attempt.kill(keep_files=False)
            self._changed.notify_all()
        if attempt is not None:
            attempt.wait_gone()
        for thread in list(self._threads):
            thread.join()
        if attempt is not None:
            attempt.wait_abandoned()
            attempt.discard()
        for log in self._logs.values():
            log.close()

    def _make_environment(self, *, is_each_step_wanted: bool) -> dict[str, str]:
        environment = {
            **self._around.environment,
            contract.ENV_JOB_NAME: self.plan.name,
            contract.ENV_JOB_ARN: self.plan.arn,
        }
        if is_each_step_wanted:
            environment[contract.ENV_PROGRESS_SECONDS] = "0"
        return {**environment, **self.plan.request.get("Environment", {})}

    def _post(self, event: ev.Event) -> None:
        with self._lock:
            if self._is_closed:
                return
            before = self._state.secondary
            actions = self._state.handle(event)
            if before == "Training" and self._state.secondary != "Training":
                self._end_training(event.at)
            if self._state.secondary != before:
                _log.info("job %s: attempt=%d %s", self.plan.name, self._state.attempt, self._state.secondary)
            self._do_all(actions)
            self._changed.notify_all()

    def _do_all(self, actions: list[ev.Action]) -> None:
        for action in actions:
            self._do(action)

    def _do(self, action: ev.Action) -> None:
        attempt = self._attempt
        match action:
            case ev.RequestCapacity():
                wait = self._capacity_wait_seconds if action.attempt > 0 else 0.0
                self._capacity_at = time.time() + wait
            case ev.Prepare():
                self._attempt = self._make_attempt(action.attempt)
                self._spawn("prepare", self._prepare, self._attempt)
            case ev.Start() if attempt is not None:
                self._begin_training()
                attempt.start()
            case ev.Terminate() if attempt is not None:
                attempt.terminate()
            case ev.Kill() if attempt is not None:
                attempt.kill(keep_files=action.keep_files)
                self._spawn("end", self._wait_gone, attempt, action.keep_files)
            case ev.Upload() if attempt is not None:
                self._spawn("upload", self._upload, attempt, action.has_model)
            case ev.Discard() if attempt is not None and attempt.number == action.attempt:
                self._spawn("discard", attempt.discard)

    def _spawn(self, what: str, target: Callable[..., None], *args: Any) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=target, args=args, name=f"{self.plan.name} {what}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _make_attempt(self, number: int) -> Attempt:
        return Attempt(
            number,
            self.plan,
            self._around,
            self._environment,
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
        self._post(ev.PreparationFailed(time.time(), attempt.number, reason))

    def _wait_gone(self, attempt: Attempt, keep_files: bool) -> None:
        attempt.wait_gone()
        for log in list(self._logs.values()):
            self._take_lines(attempt.number, log.end_line(time.time()))
        if not keep_files:
            attempt.wait_abandoned()
        self._post(ev.HostsGone(time.time(), attempt.number))

    def _upload(self, attempt: Attempt, has_model: bool) -> None:
        try:
            attempt.upload(has_model=has_model)
        except Exception as error:  # the job must end Failed and not hang in Uploading
            if not isinstance(error, OSError):
                _log.exception("job %s: artifacts could not be uploaded", self.plan.name)
            reason = f"ClientError: Artifact upload failed: {error}"
            self._post(ev.UploadFailed(time.time(), attempt.number, reason))
        else:
            self._post(ev.Uploaded(time.time(), attempt.number))

    def _log(self, host: int) -> LogWriter:
        """Return the host's stream; made at its first output, as the service does."""
        with self._lock:
            if host not in self._logs:
                self._logs[host] = LogWriter(self._log_paths[host])
            return self._logs[host]

    def _on_output(self, attempt: int, host: int, data: bytes) -> None:
        self._take_lines(attempt, self._log(host).write(data, time.time()))

    def _take_lines(self, attempt: int, lines: list[str]) -> None:
        for line in lines:
            now = time.time()
            with self._lock:
                step = self._metrics.read(line, now)
                if step is not None and attempt == self._state.attempt:
                    self._step = step
                    self._check_schedule(now)

    def _begin_training(self) -> None:
        now = time.time()
        self._step = None
        self._attempt_training_at = now
        if self._first_training_at is None:
            self._first_training_at = now

    def _end_training(self, at: float) -> None:
        if self._attempt_training_at is not None:
            self._trained_seconds += max(0.0, at - self._attempt_training_at)
            self._attempt_training_at = None

    def _moment(self, now: float) -> Moment | None:
        """Return where the running attempt is; None unless it trains and could be reclaimed."""
        if not (self._state.secondary == "Training" and self._state.is_training):
            return None
        if self._first_training_at is None or self._attempt_training_at is None:
            return None
        attempt_seconds = now - self._attempt_training_at
        return Moment(
            attempt=self._state.attempt,
            job_seconds=now - self._state.created_at,
            since_first_training_seconds=now - self._first_training_at,
            attempt_seconds=attempt_seconds,
            trained_seconds=self._trained_seconds + attempt_seconds,
            step=self._step,
        )

    def _check_schedule(self, now: float) -> None:
        moment = self._moment(now)
        reclaim = self._replay.due(moment) if moment is not None else None
        if moment is None or reclaim is None:
            return
        _log.info(
            "job %s: attempt=%d step=%s reclaimed by %s", self.plan.name, moment.attempt, moment.step, reclaim.cause
        )
        self._post(ev.ReclaimDue(now, moment.attempt, reclaim.grace_seconds))

    def _run_clock(self) -> None:
        with self._changed:
            while not (self._state.is_terminal or self._is_closed):
                now = time.time()
                if self._state.deadline is not None and now >= self._state.deadline:
                    self._post(ev.TimePassed(now))
                self._check_schedule(now)
                if self._seconds_to_capacity(now) <= 0:
                    self._capacity_at = None
                    self._post(ev.CapacityFound(now, self._state.attempt))
                wait = self._seconds_to_next(time.time())
                self._changed.wait(None if math.isinf(wait) else max(_SHORTEST_WAIT_SECONDS, wait))

    def _seconds_to_capacity(self, now: float) -> float:
        if self._capacity_at is None:
            return math.inf
        return max(self._capacity_at - now, self._replay.seconds_to_capacity(now - self._state.created_at))

    def _seconds_to_next(self, now: float) -> float:
        """Return the seconds until time alone may change something."""
        if self._state.is_terminal or self._is_closed:
            return 0.0
        waits = [self._seconds_to_capacity(now)]
        if self._state.deadline is not None:
            waits.append(self._state.deadline - now)
        moment = self._moment(now)
        next_reclaim = self._replay.seconds_to_next(moment) if moment is not None else None
        if next_reclaim is not None:
            waits.append(next_reclaim)
        return min(waits)
