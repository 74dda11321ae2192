"""The thin shell that keeps a run to its goal: look, decide, do; again and again. It may be killed at any instant.

What it does is safe to do twice: a job is created under the number after the last one that has ended, and of two who
create it the service refuses one; a stop is written down before it is asked for. So at most one job of the run is
live, whatever dies, and however many supervise it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from spotproof.errors import LaunchError, SpotError
from spotproof.launch import ServiceUnreachable, TrainingService
from spotproof.storage import Storage, StorageUnavailable
from spotproof.supervise.decide import Action, End, Keep, Stop, Submit, decide
from spotproof.supervise.goal import AWS_TIMES, LOCAL_TIMES, Times
from spotproof.supervise.look import JobWatcher, Look
from spotproof.supervise.measure import Measured, RunJob, build_state, measure
from spotproof.supervise.record import RunRecord, job_name, job_number, read_stops, write_stop

__all__ = ["Away", "Decided", "Looked", "Supervisor", "request_of_job", "times_of"]

_LONGEST_PAUSE_SECONDS: Final = 60.0
_MAX_JOBS: Final = 9999


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """The run was looked at."""

    look: Look
    measured: Measured
    number: int
    spent_usd: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """Something is done, or the run is over."""

    at: datetime
    action: Action
    job_name: str | None
    """The job that is created or stopped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Away:
    """The service does not answer; the jobs go on without us."""

    why: str


Told = Looked | Decided | Away


def times_of(service: TrainingService) -> Times:
    """Return how long the service's moves take, as far as that is not measured."""
    return LOCAL_TIMES if service.is_local else AWS_TIMES


def request_of_job(record: RunRecord, action: Submit, name: str) -> dict[str, Any]:
    """Return the request that *action* makes: the run's own, under another name and on other machines."""
    kind = record.goal.machines[action.machine].instance_type
    stopping = dict(record.request["StoppingCondition"])
    if action.is_spot:
        stopping.setdefault("MaxWaitTimeInSeconds", stopping["MaxRuntimeInSeconds"])
    else:
        stopping.pop("MaxWaitTimeInSeconds", None)  # the service refuses it on demand
    return {
        **record.request,
        "TrainingJobName": name,
        "ResourceConfig": {**record.request["ResourceConfig"], "InstanceType": kind},
        "StoppingCondition": stopping,
        "EnableManagedSpotTraining": action.is_spot,
    }


class Supervisor:
    """Keeps one run to its goal.

    Args:
        service: Where its jobs are.
        record: What was asked for.
        storage: The run's own folder.
        open_place: Gives the storage of a checkpoint folder.
        times: How long the service's moves take; None for what is known of AWS or of the local one.
        on_told: Told what is seen and done.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        service: TrainingService,
        record: RunRecord,
        storage: Storage,
        open_place: Callable[[str], Storage],
        *,
        times: Times | None = None,
        on_told: Callable[[Told], None] = lambda _: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service, self._record, self._storage, self._open_place = service, record, storage, open_place
        self._on_told, self._pause = on_told, pause
        self._times = times or times_of(service)
        self._ended: dict[int, RunJob] = {}
        self._watcher: tuple[int, JobWatcher] | None = None
        self._last_look: Look | None = None
        self._num_known = 0

    def run(self) -> End:
        """Block until the run is over; return how it ended.

        Raises:
            LaunchError: The service refuses for good, as with credentials that have expired. The jobs go on; start
                again to supervise them further.
        """
        pause = self._times.poll_seconds
        while True:
            try:
                end = self.step()
                pause = self._times.poll_seconds
            except (ServiceUnreachable, StorageUnavailable) as error:
                self._on_told(Away(why=str(error)))
                pause = min(2 * pause, max(_LONGEST_PAUSE_SECONDS, self._times.poll_seconds))
                end = None
            if end is not None:
                return end
            self._pause(pause)

    def step(self) -> End | None:
        """Look, decide and act once; return how the run ended, if it has."""
        if self._num_known == 0:
            self._find_jobs()
        now = datetime.now(timezone.utc)
        jobs, look = self._look(now)
        record, times = self._record, self._times
        measured = measure(jobs, look, record.goal, times)
        state = build_state(record.goal, record.created_at, jobs, look, measured, now, times)
        if look is not None:
            self._on_told(Looked(look=look, measured=measured, number=jobs[-1].number, spent_usd=state.spent_usd))
        action = decide(record.goal, state, times)
        if isinstance(action, Stop):
            assert state.live is not None
            self._stop(state.live.number, action, now)
        elif isinstance(action, Submit):
            self._submit(self._num_known + 1, action, now)
        elif isinstance(action, End):
            name = job_name(record.run, jobs[-1].number) if jobs else None
            self._on_told(Decided(at=now, action=action, job_name=name))
            return action
        else:
            assert isinstance(action, Keep)
        return None

    def _find_jobs(self) -> None:
        """Find the run's jobs. Lists may be behind: what they don't show yet is met when its name is taken."""
        for summary in self._service.list(limit=_MAX_JOBS, name_contains=self._record.run):
            number = job_number(self._record.run, summary["TrainingJobName"])
            self._num_known = max(self._num_known, number or 0)

    def _look(self, now: datetime) -> tuple[list[RunJob], Look | None]:
        """Return the run's jobs, and the newest of them in detail."""
        stops = read_stops(self._storage) if self._num_known else {}
        jobs: list[RunJob] = []
        for number in range(1, self._num_known):
            if number not in self._ended:
                description = self._service.describe(job_name(self._record.run, number))
                self._ended[number] = RunJob(number=number, description=description, stop_reason=stops.get(number))
            jobs.append(self._ended[number])
        if self._num_known:
            if self._watcher is None or self._watcher[0] != self._num_known:
                name = job_name(self._record.run, self._num_known)
                self._watcher = (self._num_known, JobWatcher(self._service, name, self._open_place))
            self._last_look = self._watcher[1].look(now)
            description = dict(self._last_look.description)
            reason = stops.get(self._num_known)
            jobs.append(RunJob(number=self._num_known, description=description, stop_reason=reason))
        return jobs, self._last_look

    def _submit(self, number: int, action: Submit, now: datetime) -> None:
        name = job_name(self._record.run, number)
        try:
            self._service.submit(request_of_job(self._record, action, name))
        except ServiceUnreachable:
            raise
        except LaunchError:
            # Another supervisor was first, or we were, before we were killed: then the job is there, and it counts.
            if not self._is_there(name):
                raise
        else:
            self._on_told(Decided(at=now, action=action, job_name=name))
        self._num_known = number

    def _is_there(self, name: str) -> bool:
        try:
            self._service.describe(name)
        except ServiceUnreachable:
            raise
        except LaunchError:
            return False
        return True

    def _stop(self, number: int, action: Stop, now: datetime) -> None:
        name = job_name(self._record.run, number)
        write_stop(self._storage, number, action.reason)
        try:
            self._service.stop(name)
        except ServiceUnreachable:
            raise
        except SpotError:
            # It has ended by itself meanwhile, or another supervisor stops it.
            if self._service.describe(name)["TrainingJobStatus"] == "InProgress":
                raise
            return
        self._on_told(Decided(at=now, action=action, job_name=name))
