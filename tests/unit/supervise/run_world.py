"""A SageMaker of a few lines for the supervisor's decisions: capacity follows a trace, jobs train, time is given.

It answers as the service does (descriptions, events, the newest checkpoint), so that what is measured and decided goes
the whole way of the product: ``measure``, ``build_state``, ``decide``. All seconds count from the run's creation.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from spotproof.events import CheckpointCommitted, Progress, Resumed, StepsPlanned
from spotproof.supervise import (
    End,
    Goal,
    Look,
    RunJob,
    Stop,
    StoredCheckpoint,
    Submit,
    Times,
    build_state,
    decide,
    measure,
)

ZERO = datetime(2026, 1, 1, tzinfo=timezone.utc)
TIMES = Times(
    poll_seconds=120.0,
    platform_seconds=240.0,
    warm_up_seconds=120.0,
    mirror_seconds=30.0,
    interval_seconds=900.0,
    patience_seconds=900.0,
    stop_seconds=180.0,
)
BOOT, DOWNLOAD, WARM_UP, STOPPING = 180.0, 30.0, 60.0, 20.0


@dataclass
class Job:
    """One job of the world."""

    number: int
    is_spot: bool
    machine: int
    created: float
    reason: str | None = None
    status: str = "InProgress"
    transitions: list = field(default_factory=list)
    boot_at: float | None = None
    """Since when it has machines."""
    billed: float = 0.0
    training_seconds: float = 0.0

    def enter(self, status, at, message=""):
        if self.transitions and self.transitions[-1][0] == status:
            self.transitions[-1][2] = message
        else:
            self.transitions.append([status, at, message])


class World:
    """One run in it.

    Args:
        is_there: Whether spot capacity of a machine is there at a time: ``(machine, seconds) -> bool``.
        goal: What the run is to keep to.
        total_steps: Of the training.
        seconds_per_step: Of it, saves included.
        interval: Seconds between two saves.
    """

    def __init__(self, is_there, goal: Goal, *, total_steps, seconds_per_step, interval=600.0, tick=60.0):
        self.is_there, self.goal = is_there, goal
        self.total_steps, self.pace, self.interval, self.tick = total_steps, seconds_per_step, interval, tick
        self.now = 0.0
        self.jobs: list[Job] = []
        self.events: list = []
        self.step, self.saved, self.durable = 0.0, 0, 0
        self.num_attempts = 0
        self.finished_at = None

    # -- what the service does ---------------------------------------------------------------------------------------

    def submit(self, action: Submit):
        assert all(job.status not in ("InProgress", "Stopping") for job in self.jobs), "two live jobs"
        job = Job(len(self.jobs) + 1, action.is_spot, action.machine, self.now)
        job.enter("Starting", self.now, "Starting the training job")
        self.jobs.append(job)

    def stop(self, action: Stop):
        job = self.jobs[-1]
        job.reason, job.status = action.reason, "Stopping"
        job.enter("Stopping", self.now)
        if job.boot_at is not None and job.transitions[-2][0] == "Training":
            self._save(self.now, at_once=True)

    def advance(self, seconds):
        end = self.now + seconds
        while self.now < end - 1e-9:
            self._tick(min(self.tick, end - self.now))

    def _tick(self, dt):
        self.now += dt
        if not self.jobs:
            return
        job = self.jobs[-1]
        if job.status == "Stopping":
            if self.now - job.transitions[-1][1] >= STOPPING:
                self._close(job, "Stopped", "Stopped")
        elif job.status == "InProgress":
            self._run(job, dt)

    def _run(self, job, dt):
        has_capacity = not job.is_spot or self.is_there(job.machine, self.now)
        if not has_capacity:
            if job.boot_at is not None:
                self._reclaim(job)
            else:
                job.enter("Starting", self.now, "Insufficient capacity error from EC2 while launching instances")
            return
        if job.boot_at is None:
            job.boot_at = self.now - dt
            job.enter("Starting", self.now, "Preparing the instances for training")
        up = self.now - job.boot_at
        if up < BOOT:
            return
        if job.transitions[-1][0] == "Starting":
            job.enter("Downloading", job.boot_at + BOOT)
        if up < BOOT + DOWNLOAD:
            return
        if job.transitions[-1][0] == "Downloading":
            job.enter("Training", job.boot_at + BOOT + DOWNLOAD)
        if up < BOOT + DOWNLOAD + WARM_UP:
            return
        self._train(job, min(dt, up - BOOT - DOWNLOAD - WARM_UP))

    def _train(self, job, dt):
        attempt = self.num_attempts
        if not any(event.attempt == attempt for event in self.events):
            self.step = float(self.durable)
            at = ZERO + timedelta(seconds=self.now - dt)
            self.events += [
                StepsPlanned(attempt=attempt, total_steps=self.total_steps, at=at),
                Resumed(attempt=attempt, step=self.durable, seconds=1.0, at=at),
                Progress(attempt=attempt, step=self.durable, epoch=0, at=at),
                Progress(attempt=attempt, step=self.durable, epoch=0, at=at),
            ]
            self._saved_at = self.now - dt
        self.step += dt / self.pace
        if self.step >= self.total_steps:
            self.finished_at = self.now - (self.step - self.total_steps) * self.pace
            self.step = float(self.total_steps)
            self._close(job, "Completed", "Completed")
            return
        self.events[-1] = Progress(attempt=attempt, step=int(self.step), epoch=0, at=ZERO + timedelta(seconds=self.now))
        if self.now - self._saved_at >= self.interval:
            self._save(self.now, at_once=False)
        elif self.now - self._saved_at >= TIMES.mirror_seconds:
            self.durable = max(self.durable, self.saved)

    def _save(self, at, *, at_once):
        self.saved, self._saved_at = int(self.step), at
        self.events.insert(
            -1,
            CheckpointCommitted(
                attempt=self.num_attempts,
                step=self.saved,
                stall_seconds=1,
                durable_seconds=1,
                total_bytes=1,
                written_bytes=1,
                at=ZERO + timedelta(seconds=at),
            ),
        )
        if at_once:
            self.durable = self.saved

    def _reclaim(self, job):
        self._leave(job)
        job.enter("Interrupted", self.now)
        job.enter("Starting", self.now, "Launching requested ML instances")

    def _leave(self, job):
        if job.boot_at is not None:
            job.billed += max(0.0, self.now - job.boot_at - BOOT)  # from Downloading on, as the service does
            job.boot_at = None
        if any(event.attempt == self.num_attempts for event in self.events):
            self.num_attempts += 1
        self.saved = self.durable

    def _close(self, job, status, secondary):
        self._leave(job)
        job.status = status
        job.enter(secondary, self.now)

    # -- what its clients see ----------------------------------------------------------------------------------------

    def describe(self, job):
        times = [ZERO + timedelta(seconds=at) for _, at, _ in job.transitions]
        ends = [*times[1:], None]
        answer = {
            "TrainingJobName": f"run-{job.number:04d}",
            "TrainingJobStatus": job.status,
            "SecondaryStatus": job.transitions[-1][0],
            "SecondaryStatusTransitions": [
                {"Status": status, "StartTime": at, "StatusMessage": message, **({"EndTime": end} if end else {})}
                for (status, _, message), at, end in zip(job.transitions, times, ends, strict=True)
            ],
            "CreationTime": ZERO + timedelta(seconds=job.created),
            "EnableManagedSpotTraining": job.is_spot,
            "ResourceConfig": {
                "InstanceType": self.goal.machines[job.machine].instance_type,
                "InstanceCount": self.goal.num_instances,
            },
            "CheckpointConfig": {"S3Uri": "s3://b/c/"},
        }
        if job.status in ("Completed", "Stopped", "Failed"):
            answer |= {"TrainingTimeInSeconds": max(1, int(job.billed)), "TrainingEndTime": times[-1]}
        return answer

    def look(self):
        if not self.jobs:
            return None
        stored = StoredCheckpoint(step=self.durable, created_at=ZERO) if self.durable else None
        return Look(
            at=ZERO + timedelta(seconds=self.now),
            description=self.describe(self.jobs[-1]),
            events=tuple(sorted(self.events, key=lambda event: event.at)),
            checkpoint=stored,
            poll_seconds=TIMES.poll_seconds,
        )

    def run_jobs(self):
        return [RunJob(number=job.number, description=self.describe(job), stop_reason=job.reason) for job in self.jobs]

    # -- a supervisor that knows nothing but this --------------------------------------------------------------------

    def supervise(self, *, until):
        """Return how the run ended; fail if it has not after *until* seconds."""
        while self.now < until:
            action = self.decide()
            if isinstance(action, End):
                return action
            if isinstance(action, Stop):
                self.stop(action)
            elif isinstance(action, Submit):
                self.submit(action)
            self.advance(TIMES.poll_seconds)
        raise AssertionError(f"not over after {until} s: {[job.transitions for job in self.jobs]}")

    def decide(self):
        jobs, look, now = self.run_jobs(), self.look(), ZERO + timedelta(seconds=self.now)
        measured = measure(jobs, look, self.goal, TIMES)
        return decide(self.goal, build_state(self.goal, ZERO, jobs, look, measured, now, TIMES), TIMES)

    @property
    def on_demand_seconds(self):
        return sum(job.billed for job in self.jobs if not job.is_spot)

    @property
    def spot_seconds(self):
        return sum(job.billed for job in self.jobs if job.is_spot)
