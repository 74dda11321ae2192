"""From what was seen of a run to the state that is decided on: work left, pace, start-ups, money. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from spotproof.contract import TERMINAL_STATUSES
from spotproof.plan import PlannedJob, Price
from spotproof.report import AttemptSummary, Summary, summarize
from spotproof.supervise.billing import running_seconds, spent_usd, usd_per_second
from spotproof.supervise.decide import Ending, LiveJob, RunState, StopReason
from spotproof.supervise.goal import Goal, Machine, Times
from spotproof.supervise.look import Look, commit_gaps
from spotproof.supervise.view import total_steps

__all__ = ["Measured", "RunJob", "build_state", "measure"]

_MARGIN: Final = 0.05
"""Of the measured pace: the rest may be slower than what was seen, by another validation or a busier machine."""
_EVIDENCE_POLLS: Final = 6
"""Looks that a pace must rest on."""
_PREPARING: Final = "Preparing the instances for training"
_STARVED: Final = "Insufficient capacity"
"""Source of both: messages of the service, in job logs quoted in issues of aws/amazon-sagemaker-examples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunJob:
    """One job of the run."""

    number: int
    """From 1."""
    description: Mapping[str, Any]
    stop_reason: StopReason | None = None
    """Why it was stopped, where a supervisor did that."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.description["TrainingJobStatus"] in TERMINAL_STATUSES

    @property
    def is_spot(self) -> bool:
        """Whether it runs on spot, as the service sees it."""
        return bool(self.description.get("EnableManagedSpotTraining"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What is known of the work."""

    left_seconds: float
    """Undisturbed training beyond what the machines, or S3, hold now."""
    work_seconds: float
    """All of it."""
    is_assumed: bool
    """Whether the work is what was given, because no pace is known."""
    seconds_per_step: float | None
    step: int | None
    total_steps: int | None
    start_seconds: float
    """From a machine to the first new step."""
    interval_seconds: float
    """Between two saves."""
    durable_seconds: float
    """From a save until it is in S3."""


def measure(jobs: Sequence[RunJob], look: Look | None, goal: Goal, times: Times) -> Measured:
    """Return what the run has shown of its work and its costs.

    Args:
        jobs: Of the run, in their order.
        look: At the newest of them; None before the first.
        goal: What is assumed where nothing is measured is in it.
        times: The same of the platform.
    """
    summary = summarize(_one_history(jobs), look.events if look is not None else ())
    live = jobs[-1] if jobs and not jobs[-1].is_over else None
    has_machine = live is not None and live.description.get("SecondaryStatus") == "Training"
    saved = look.checkpoint.step if look is not None and look.checkpoint is not None else 0
    last = summary.attempts[-1] if summary.attempts else None
    step = last.last_step if last is not None and has_machine and last.last_step is not None else saved
    total = total_steps(look) if look is not None else None
    pace = _pace(summary.attempts, times)
    if total is not None and pace is not None:
        work, left, is_assumed = total * pace, max(0, total - step) * pace, False
    else:
        # What is done is taken off at a pace on the safe side, which here is the quicker one.
        done = step * pace / (1 + _MARGIN) ** 2 if pace is not None else 0.0
        work, left, is_assumed = goal.work_seconds, max(goal.work_seconds - done, times.poll_seconds), True
    commits = summary.durable_seconds
    return Measured(
        left_seconds=left,
        work_seconds=max(work, left, 1.0),
        is_assumed=is_assumed,
        seconds_per_step=pace,
        step=step if look is not None else None,
        total_steps=total,
        start_seconds=times.platform_seconds + _warm_up(jobs, summary, times) + times.switch_seconds,
        interval_seconds=_interval(look, summary, times),
        durable_seconds=(commits.p95 if commits is not None else 0.0) + times.mirror_seconds,
    )


def build_state(
    goal: Goal,
    created_at: datetime,
    jobs: Sequence[RunJob],
    look: Look | None,
    measured: Measured,
    now: datetime,
    times: Times,
) -> RunState:
    """Return the state to decide on.

    Args:
        goal: What was asked for.
        created_at: When the run was.
        jobs: Of the run, in their order; the newest as in *look*.
        look: At the newest of them; None before the first.
        measured: From :func:`measure`.
        now: The clock's time.
        times: How long the platform's own moves take.
    """
    ended = [job for job in jobs if job.is_over]
    live = next((job for job in jobs if not job.is_over), None)
    planned = None
    if goal.deadline_at is not None:
        planned = PlannedJob(
            work_seconds=measured.work_seconds,
            deadline_seconds=max(1.0, (goal.deadline_at - created_at).total_seconds()),
            start_seconds=measured.start_seconds,
            interval_seconds=measured.interval_seconds,
            durable_seconds=measured.durable_seconds,
        )
    return RunState(
        now_seconds=(now - created_at).total_seconds(),
        left_seconds=measured.left_seconds,
        job=planned,
        live=_live(live, goal, now) if live is not None else None,
        endings=tuple(_ending(job) for job in ended),
        on_spot=tuple(job.is_spot for job in ended),
        machines=tuple(_machine(job, goal) for job in ended),
        spent_usd=_spent(jobs, goal, now),
    )


def _one_history(jobs: Sequence[RunJob]) -> dict[str, Any]:
    """Return the jobs' status histories as that of one job: each goes on where the one before has stopped."""
    if not jobs:
        return {}
    transitions = [entry for job in jobs for entry in job.description.get("SecondaryStatusTransitions") or []]
    return {**jobs[-1].description, "SecondaryStatusTransitions": transitions}


def _pace(attempts: Sequence[AttemptSummary], times: Times) -> float | None:
    """Return seconds per step to reckon with: the slower one of all attempts' mean and the newest's, and a margin."""
    spans = [
        (each.last_step - each.resumed_from_step, each.seconds_per_step)
        for each in attempts
        if each.seconds_per_step is not None and each.last_step is not None and each.resumed_from_step is not None
    ]
    known = [(steps, pace) for steps, pace in spans if steps * pace >= _EVIDENCE_POLLS * times.poll_seconds]
    if not known:
        return None
    mean = sum(steps * pace for steps, pace in known) / sum(steps for steps, _ in known)
    return max(mean, known[-1][1]) * (1 + _MARGIN)


def _warm_up(jobs: Sequence[RunJob], summary: Summary, times: Times) -> float:
    """Return the longest time from Downloading to a first step that was seen; before any, what is assumed."""
    downloads: list[float] = []
    since: datetime | None = None
    for entry in (entry for job in jobs for entry in job.description.get("SecondaryStatusTransitions") or []):
        if entry["Status"] == "Downloading":
            since = entry["StartTime"]
        elif entry["Status"] == "Training" and since is not None:
            downloads.append((entry["StartTime"] - since).total_seconds())
            since = None
    starts = [each.start_up_seconds for each in summary.attempts if each.start_up_seconds is not None]
    return max(downloads, default=0.0) + max(starts) if starts else times.warm_up_seconds


def _interval(look: Look | None, summary: Summary, times: Times) -> float:
    """Return the time between two saves: as it is set, or the longest that was seen; before that, what is assumed."""
    gaps = commit_gaps(look.events) if look is not None else []
    return max([*gaps, summary.interval_seconds or 0.0]) if gaps else summary.interval_seconds or times.interval_seconds


def _live(job: RunJob, goal: Goal, now: datetime) -> LiveJob:
    description = job.description
    transitions = description.get("SecondaryStatusTransitions") or []
    secondary = str(description.get("SecondaryStatus", ""))
    message = str(transitions[-1].get("StatusMessage", "")) if transitions else ""
    is_waiting = secondary in ("Starting", "Pending", "Interrupted", "Restarting", "LaunchingMLInstances")
    if description["TrainingJobStatus"] == "Stopping":
        stage = "stopping"
    else:
        stage = "waiting" if is_waiting and message != _PREPARING else "running"
    since = description["CreationTime"]
    for entry in reversed(transitions):
        if entry["Status"] not in ("Starting", "Pending", "Interrupted", "Restarting", "LaunchingMLInstances"):
            break
        since = entry["StartTime"]
    return LiveJob(
        number=job.number,
        is_spot=job.is_spot,
        machine=_machine(job, goal),
        stage=stage,  # type: ignore[arg-type]
        waiting_seconds=max(0.0, (now - since).total_seconds()) if stage == "waiting" else 0.0,
        is_starved=_STARVED in message,
        is_training=secondary == "Training",
    )


def _ending(job: RunJob) -> Ending:
    description = job.description
    status, secondary = description["TrainingJobStatus"], description.get("SecondaryStatus")
    if status == "Completed":
        return "completed"
    if status == "Failed":
        reason = str(description.get("FailureReason", ""))
        if "CapacityError" in reason:
            return "capacity"
        return "service" if "InternalServerError" in reason else "failed"
    if secondary == "MaxRuntimeExceeded":
        return "out of time"
    if secondary == "MaxWaitTimeExceeded":
        return "out of wait"
    return job.stop_reason or "by hand"


def _machine(job: RunJob, goal: Goal) -> int:
    kind = (job.description.get("ResourceConfig") or {}).get("InstanceType")
    return next((index for index, machine in enumerate(goal.machines) if machine.instance_type == kind), 0)


def _spent(jobs: Sequence[RunJob], goal: Goal, now: datetime) -> float | None:
    """Return what all jobs have cost, on the safe side: of two ways to count, the one that gives more."""
    total = 0.0
    for job in jobs:
        price = _price(goal.machines[_machine(job, goal)])
        told, per_second = spent_usd(job.description, now, price), usd_per_second(job.description, price)
        counted = None if per_second is None else per_second * running_seconds(job.description, now)
        known = [usd for usd in (told, counted) if usd is not None]
        if not known:
            return None
        total += max(known)
    return total if math.isfinite(total) else None


def _price(machine: Machine) -> Price:
    return Price(
        on_demand_usd_per_hour=machine.on_demand_usd_per_hour,
        spot_usd_per_hour=machine.spot_usd_per_hour,
        source="given",
    )
