"""Events and the service's description to numbers. Pure: no clock, no network, no rendering."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spotproof.events import (
    AttemptEnded,
    CheckpointCommitted,
    CheckpointRejected,
    Event,
    IntervalTuned,
    Resumed,
    SaveFailed,
    Warned,
)
from spotproof.report.attempts import attempt_windows, by_window, of_this_job
from spotproof.report.cost import Cost, PriceTag, cost_of
from spotproof.report.faults import FaultSummary
from spotproof.report.missing import missing_of
from spotproof.report.runs import Run, lost_seconds, lost_steps, seconds_between, seconds_per_step
from spotproof.report.runs import finish_seconds as finish_time
from spotproof.report.runs import undisturbed_seconds as undisturbed_time
from spotproof.report.runs import useful_seconds as useful_time
from spotproof.report.savings import aws_savings_percent, net_savings_percent
from spotproof.report.waits import waits_of

__all__ = ["AttemptSummary", "Spread", "Summary", "Verdict", "spread_of", "summarize", "to_json"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Half of the values are at most *p50*, nineteen of twenty at most *p95*."""

    p50: float
    p95: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A checkpoint that was passed over at a resume, and why."""

    step: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptSummary:
    """One run of the container."""

    number: int
    """Counted from 0, as the service ran them."""
    outcome: str
    """How it ended: see :class:`spotproof.report.attempts.Window`."""
    seconds: float | None
    """Time in Training; None while it runs."""
    resumed_from_step: int | None
    """Step of the checkpoint it went on from; 0 for none; None if nothing of it is known."""
    began_anew: bool
    """Whether it found no checkpoint to go on from though an attempt before it had come further than the start."""
    last_step: int | None
    """The last step it is known to have completed."""
    lost_steps: int
    """Steps it computed that the next attempt had to compute again."""
    num_checkpoints: int
    """Committed by it, as far as they are known."""
    stall_seconds: Spread | None
    """How long a save kept training waiting."""
    durable_seconds: Spread | None
    """From the end of that to the commit."""
    restore_seconds: float | None
    """Reading, verifying and applying the checkpoint it resumed from."""
    start_up_seconds: float | None
    """From the start of Training to its first step; None if it had none."""
    seconds_per_step: float | None
    """Mean of its steps, saves included."""
    rejected: tuple[Rejected, ...]
    failed_saves: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether the model is the one the undisturbed run produced."""

    is_identical: bool
    compared: str
    """What was compared, for people."""
    where: str | None = None
    """The first difference."""
    detail: str | None = None
    note: str = ""
    """What is not part of the verdict and should be known, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a job did. Every figure is measured unless its name or its source field says otherwise."""

    job_name: str
    status: str
    failure_reason: str | None
    is_spot: bool
    attempts: tuple[AttemptSummary, ...]
    num_interruptions: int
    final_step: int | None
    lost_steps: int
    num_checkpoints: int
    stall_seconds: Spread | None
    durable_seconds: Spread | None
    interval_seconds: float | None
    """Between saves in ``auto`` mode, as it was set last."""
    slowdown_seconds: float | None
    """In ``auto`` mode: what steps took longer, all together, while a save was written, as it was known last."""
    interval_reason: str | None
    """Why, in one sentence."""
    interval_changes: int
    """How often it was set anew, the first time of each attempt not counted."""
    training_seconds: float | None
    """As the service counts: running time of all attempts."""
    billable_seconds: float | None
    """As the service counts: after the spot discount."""
    aws_savings_percent: float | None
    undisturbed_job_name: str | None
    undisturbed_seconds: float | None
    """Running time of one undisturbed on-demand run."""
    undisturbed_source: str | None
    """``measured`` (it was run) or ``estimated`` (from this job's time per step, one start-up and one end)."""
    net_savings_percent: float | None
    useful_seconds: float | None
    """Time spent on steps that are part of the final model."""
    wall_seconds: float | None
    """From the submission to the end."""
    goodput: float | None
    """useful / wall."""
    waiting_seconds: float | None
    """For machines: in Pending, Starting, Interrupted and Restarting."""
    no_capacity_seconds: float | None
    """Of these, while the service said that there was no capacity."""
    lost_seconds: float | None
    """Spent on lost steps, at each attempt's own pace."""
    finish_seconds: float | None
    """From the last step to the end."""
    saving_seconds: float | None
    """What saves took from training: stalls, and in ``auto`` mode slowed steps."""
    instance_type: str | None
    instance_count: int
    cost: Cost
    missing: Mapping[str, str]
    """Figures that are None, and why each is."""
    reclaims_planned: int | None = None
    """What the schedule asked for; None if it names no number."""
    verdict: Verdict | None = None
    faults: FaultSummary | None = None
    """What was let in on purpose besides the reclaims; None if nothing was."""

    @property
    def num_resumes(self) -> int:
        """Attempts that went on from a checkpoint: without any, an identical end shows little."""
        return sum(1 for attempt in self.attempts if attempt.resumed_from_step)


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return median and 95th percentile of *values* (nearest rank), or None for none."""
    ordered = sorted(values)
    if not ordered:
        return None

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Spread(p50=rank(0.5), p95=rank(0.95))


def summarize(
    description: Mapping[str, Any],
    events: Sequence[Event],
    *,
    undisturbed: Mapping[str, Any] | None = None,
    verdict: Verdict | None = None,
    reclaims_planned: int | None = None,
    faults: FaultSummary | None = None,
    price: PriceTag | None = None,
) -> Summary:
    """Return what the job of *description* did.

    Args:
        description: DescribeTrainingJob's answer, times as aware datetimes.
        events: Of all attempts, from the event files and from the log; the same progress may be told by both.
        undisturbed: DescribeTrainingJob's answer for the same job run on demand and undisturbed, if it was run.
        verdict: Whether both ended with the same model.
        reclaims_planned: How many reclaims the schedule asked for.
        faults: What was let in besides.
        price: Of one of its instances, or why none is known.
    """
    events = of_this_job(events, description)
    windows = attempt_windows(description, events)
    groups = by_window(events, windows)
    runs = [Run(window, group) for window, group in zip(windows, groups, strict=True)]
    committed = [event for run in runs for event in run.of(CheckpointCommitted)]
    training = _number(description.get("TrainingTimeInSeconds"))
    billable = _number(description.get("BillableTimeInSeconds"))
    useful = useful_time(runs)
    wall = seconds_between(description.get("CreationTime"), description.get("TrainingEndTime"))
    baseline, source = undisturbed_time(description, undisturbed, runs)
    lost = [lost_steps(runs, index) for index in range(len(runs))]
    intervals = [run.of(IntervalTuned) for run in runs]
    last_interval = next((tuned[-1] for tuned in reversed(intervals) if tuned), None)
    slowdown = last_interval.slowdown_seconds if last_interval else None
    waits = waits_of(description)
    recomputing = lost_seconds(runs, lost)
    resources = description.get("ResourceConfig") or {}
    num_instances = _instance_count(resources)
    cost = cost_of(
        price or PriceTag(usd_per_hour=None, source=""),
        num_instances=num_instances,
        billable_seconds=billable,
        training_seconds=training,
        undisturbed_seconds=baseline,
        lost_seconds=recomputing,
    )
    known = {
        "training_seconds": training,
        "billable_seconds": billable,
        "undisturbed_seconds": baseline,
        "useful_seconds": useful,
        "wall_seconds": wall,
        "waiting_seconds": waits,
        "lost_seconds": recomputing,
        "cost": cost.usd,
    }
    return Summary(
        job_name=str(description.get("TrainingJobName", "")),
        status=str(description.get("TrainingJobStatus", "unknown")),
        failure_reason=description.get("FailureReason") or None,
        is_spot=bool(description.get("EnableManagedSpotTraining", False)),
        attempts=tuple(
            _attempt(
                number, run, lost[number], has_come_far=any((before.last_step or 0) > 0 for before in runs[:number])
            )
            for number, run in enumerate(runs)
        ),
        num_interruptions=sum(
            1 for entry in description.get("SecondaryStatusTransitions") or [] if entry["Status"] == "Interrupted"
        ),
        final_step=max((run.last_step for run in runs[-1:] if run.last_step is not None), default=None),
        lost_steps=sum(lost),
        num_checkpoints=len(committed),
        stall_seconds=spread_of([event.stall_seconds for event in committed]),
        durable_seconds=spread_of([event.durable_seconds for event in committed]),
        interval_seconds=last_interval.seconds if last_interval else None,
        slowdown_seconds=slowdown,
        interval_reason=last_interval.reason if last_interval else None,
        interval_changes=sum(max(0, len(tuned) - 1) for tuned in intervals),
        training_seconds=training,
        billable_seconds=billable,
        aws_savings_percent=None if training is None or billable is None else aws_savings_percent(training, billable),
        undisturbed_job_name=None if undisturbed is None else str(undisturbed.get("TrainingJobName")),
        undisturbed_seconds=baseline,
        undisturbed_source=source,
        net_savings_percent=None if billable is None or baseline is None else net_savings_percent(billable, baseline),
        useful_seconds=useful,
        wall_seconds=wall,
        goodput=None if useful is None or not wall else useful / wall,
        waiting_seconds=waits.total if waits else None,
        no_capacity_seconds=waits.without_capacity if waits else None,
        lost_seconds=recomputing,
        finish_seconds=finish_time(description, runs),
        saving_seconds=sum(event.stall_seconds + (slowdown or 0.0) for event in committed) if committed else None,
        instance_type=resources.get("InstanceType"),
        instance_count=num_instances,
        cost=cost,
        missing=missing_of(description, events, known),
        reclaims_planned=reclaims_planned,
        verdict=verdict,
        faults=None if faults is None else faults.with_lost_steps(lost),
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the summary's numbers as plain JSON values, under the names they have here."""
    plain: dict[str, Any] = json.loads(json.dumps({**dataclasses.asdict(summary), "num_resumes": summary.num_resumes}))
    return plain


def _attempt(number: int, run: Run, lost_steps: int, *, has_come_far: bool) -> AttemptSummary:
    committed = run.of(CheckpointCommitted)
    resumed = run.of(Resumed)
    return AttemptSummary(
        number=number,
        outcome=_outcome(run),
        seconds=seconds_between(run.window.started_at, run.window.ended_at),
        resumed_from_step=run.start_step,
        began_anew=has_come_far and run.start_step == 0,
        last_step=run.last_step,
        lost_steps=lost_steps,
        num_checkpoints=len(committed),
        stall_seconds=spread_of([event.stall_seconds for event in committed]),
        durable_seconds=spread_of([event.durable_seconds for event in committed]),
        restore_seconds=resumed[-1].seconds if resumed else None,
        start_up_seconds=seconds_between(run.window.started_at, run.ready_at),
        seconds_per_step=seconds_per_step(run),
        rejected=tuple(Rejected(step=event.step, reason=event.reason) for event in run.of(CheckpointRejected)),
        failed_saves=tuple(f"step {event.step}: {event.reason}" for event in run.of(SaveFailed)),
        warnings=tuple(dict.fromkeys(event.message for event in run.of(Warned))),
    )


def _outcome(run: Run) -> str:
    if run.window.outcome != "unknown":
        return run.window.outcome
    ended = run.of(AttemptEnded)
    return str(ended[-1].outcome) if ended else "unknown"


def _instance_count(resources: Mapping[str, Any]) -> int:
    groups = resources.get("InstanceGroups") or []
    return int(resources.get("InstanceCount") or sum(group.get("InstanceCount", 0) for group in groups) or 1)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
