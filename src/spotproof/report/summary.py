"""Events and the service's description to numbers. Pure: no clock, no network, no rendering."""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spotproof.events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    CheckpointRejected,
    Event,
    IntervalTuned,
    Progress,
    Resumed,
    SaveFailed,
    Warned,
)
from spotproof.report.attempts import Window, attempt_windows, by_window
from spotproof.report.faults import FaultSummary
from spotproof.report.savings import aws_savings_percent, net_savings_percent

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
    """``measured`` (it was run) or ``computed`` (from this job's time per step: an assumption)."""
    net_savings_percent: float | None
    useful_seconds: float | None
    """Time spent on steps that are part of the final model."""
    wall_seconds: float | None
    """From the submission to the end."""
    goodput: float | None
    """useful / wall."""
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
) -> Summary:
    """Return what the job of *description* did.

    Args:
        description: DescribeTrainingJob's answer, times as aware datetimes.
        events: Of all attempts, from the event files and from the log; the same progress may be told by both.
        undisturbed: DescribeTrainingJob's answer for the same job run on demand and undisturbed, if it was run.
        verdict: Whether both ended with the same model.
        reclaims_planned: How many reclaims the schedule asked for.
        faults: What was let in besides.
    """
    windows = attempt_windows(description, events)
    groups = by_window(events, windows)
    runs = [_Run(window, group) for window, group in zip(windows, groups, strict=True)]
    committed = [event for run in runs for event in run.of(CheckpointCommitted)]
    training = _number(description.get("TrainingTimeInSeconds"))
    billable = _number(description.get("BillableTimeInSeconds"))
    useful = _useful_seconds(runs)
    wall = _seconds_between(description.get("CreationTime"), description.get("TrainingEndTime"))
    baseline, source = _undisturbed_seconds(description, undisturbed, runs)
    lost = [_lost_steps(runs, index) for index in range(len(runs))]
    intervals = [run.of(IntervalTuned) for run in runs]
    last_interval = next((tuned[-1] for tuned in reversed(intervals) if tuned), None)
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
        slowdown_seconds=last_interval.slowdown_seconds if last_interval else None,
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
        reclaims_planned=reclaims_planned,
        verdict=verdict,
        faults=None if faults is None else faults.with_lost_steps(lost),
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the summary's numbers as plain JSON values, under the names they have here."""
    plain: dict[str, Any] = json.loads(json.dumps({**dataclasses.asdict(summary), "num_resumes": summary.num_resumes}))
    return plain


class _Run:
    """One attempt's window and events, and what follows from them."""

    def __init__(self, window: Window, events: Sequence[Event]) -> None:
        self.window = window
        self.events = events
        resumed = self.of(Resumed)
        progress = sorted(self.of(Progress), key=lambda event: (event.step, event.at))
        self.steps: dict[int, datetime] = {}
        for event in progress:
            self.steps.setdefault(event.step, event.at)
        reached = [event.step for event in (*progress, *self.of(AttemptEnded), *self.of(CheckpointCommitted), *resumed)]
        self.last_step = max(reached, default=None)
        if resumed:
            self.start_step: int | None = resumed[-1].step
        elif self.of(AttemptStarted):
            self.start_step = 0
        else:  # its events were not mirrored; the log's first line says where training begins
            self.start_step = min(self.steps, default=None)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ready_at(self) -> datetime | None:
        """When its first step began: the first progress is told there."""
        return min((event.at for event in self.of(Progress)), default=None)

    def time_of(self, step: int) -> datetime | None:
        """When *step* was completed, or the nearest step before it that is known (progress is not told at each)."""
        known = [number for number in self.steps if number <= step]
        return self.steps[max(known)] if known else None


def _attempt(number: int, run: _Run, lost_steps: int, *, has_come_far: bool) -> AttemptSummary:
    committed = run.of(CheckpointCommitted)
    resumed = run.of(Resumed)
    return AttemptSummary(
        number=number,
        outcome=_outcome(run),
        seconds=_seconds_between(run.window.started_at, run.window.ended_at),
        resumed_from_step=run.start_step,
        began_anew=has_come_far and run.start_step == 0,
        last_step=run.last_step,
        lost_steps=lost_steps,
        num_checkpoints=len(committed),
        stall_seconds=spread_of([event.stall_seconds for event in committed]),
        durable_seconds=spread_of([event.durable_seconds for event in committed]),
        restore_seconds=resumed[-1].seconds if resumed else None,
        start_up_seconds=_seconds_between(run.window.started_at, run.ready_at),
        seconds_per_step=_seconds_per_step(run),
        rejected=tuple(Rejected(step=event.step, reason=event.reason) for event in run.of(CheckpointRejected)),
        failed_saves=tuple(f"step {event.step}: {event.reason}" for event in run.of(SaveFailed)),
        warnings=tuple(dict.fromkeys(event.message for event in run.of(Warned))),
    )


def _outcome(run: _Run) -> str:
    if run.window.outcome != "unknown":
        return run.window.outcome
    ended = run.of(AttemptEnded)
    return str(ended[-1].outcome) if ended else "unknown"


def _lost_steps(runs: Sequence[_Run], index: int) -> int:
    """Return the steps of one attempt that the next one that started training computed again."""
    last = runs[index].last_step
    following = next((run.start_step for run in runs[index + 1 :] if run.start_step is not None), None)
    return 0 if last is None or following is None else max(0, last - following)


def _useful_seconds(runs: Sequence[_Run]) -> float | None:
    """Return the time spent on steps that the final model is made of; None if no progress is known."""
    total, has_progress = 0.0, False
    for index, run in enumerate(runs):
        begin = run.ready_at
        if begin is None or not run.steps:
            continue
        has_progress = True
        # A later attempt may have gone back behind this one altogether: then nothing of it lives on.
        kept_to = min((later.start_step for later in runs[index + 1 :] if later.start_step is not None), default=None)
        end = max(run.steps.values()) if kept_to is None else run.time_of(kept_to)
        if end is not None:
            total += max(0.0, (end - begin).total_seconds())
    return total if has_progress else None


def _undisturbed_seconds(
    description: Mapping[str, Any], undisturbed: Mapping[str, Any] | None, runs: Sequence[_Run]
) -> tuple[float | None, str | None]:
    """Return the running time of one undisturbed run and where the figure comes from."""
    if undisturbed is not None:
        measured = _number(undisturbed.get("TrainingTimeInSeconds"))
        return (measured, "measured") if measured is not None else (None, None)
    if description.get("TrainingJobStatus") != "Completed" or not runs:
        return None, None
    first, last = runs[0], runs[-1]
    paces = [pace for pace in (_seconds_per_step(run) for run in runs) if pace is not None]
    start_up = _seconds_between(first.window.started_at, first.ready_at)
    finish = _seconds_between(max(last.steps.values(), default=None), description.get("TrainingEndTime"))
    if not paces or start_up is None or finish is None or last.last_step is None:
        return None, None
    return start_up + last.last_step * statistics.median(paces) + finish, "computed"


def _seconds_per_step(run: _Run) -> float | None:
    if len(run.steps) < 2:
        return None
    low, high = min(run.steps), max(run.steps)
    return (run.steps[high] - run.steps[low]).total_seconds() / (high - low)


def _seconds_between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else (end - begin).total_seconds()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
