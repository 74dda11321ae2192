"""A job as a person wants to see it: how far, how fast, how safe, how dear, until when. Pure."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from spotproof.contract import STEP_METRIC_NAME, TERMINAL_STATUSES
from spotproof.events import Progress, StepsPlanned
from spotproof.plan import Price
from spotproof.report import Summary, summarize
from spotproof.supervise.alarms import Alarm, find_alarms
from spotproof.supervise.billing import running_seconds, spent_usd, usd_per_second
from spotproof.supervise.look import Look

__all__ = ["JobView", "build_view", "total_steps", "view_to_json"]

_MAX_METRICS: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """One row of ``watch``. None for what is not known."""

    job_name: str
    status: str
    phase: str
    """The service's SecondaryStatus."""
    message: str
    """What it says about that."""
    is_spot: bool
    instance_type: str
    instance_count: int
    attempt: int
    """The one that runs or waits for machines, from 0."""
    num_interruptions: int
    step: int | None
    total_steps: int | None
    seconds_per_step: float | None
    """Mean of the attempt that ran last, saves and validation included."""
    metrics: Mapping[str, float]
    """The last values of the job's own metrics, as the service reads them; those called loss first."""
    checkpoint_step: int | None
    """Of the newest checkpoint in S3."""
    checkpoint_at: datetime | None
    checkpoint_age_seconds: float | None
    goodput: float | None
    """Share of the time since the first step that went into steps which count."""
    running_seconds: float
    """With machines, of one instance."""
    spent_usd: float | None
    projected_usd: float | None
    """In all, if it goes on as until now."""
    price_source: str | None
    finish_at: datetime | None
    """When it will be done, if it goes on as until now."""
    failure_reason: str | None
    is_over: bool
    alarms: tuple[Alarm, ...]


def build_view(look: Look, *, price: Price | None = None, asked_spot: bool | None = None) -> JobView:
    """Return what *look* shows.

    Args:
        look: The job at one moment.
        price: Of one instance; None if it is not known.
        asked_spot: Whether the job was submitted for managed spot; None if that is not known.
    """
    description = look.description
    is_over = description["TrainingJobStatus"] in TERMINAL_STATUSES
    summary = summarize(description, look.events)
    last = summary.attempts[-1] if summary.attempts else None
    transitions = description.get("SecondaryStatusTransitions") or []
    resources = description.get("ResourceConfig") or {}
    step = _step(look, summary)
    paces = [attempt.seconds_per_step for attempt in summary.attempts if attempt.seconds_per_step is not None]
    planned = total_steps(look)
    ended_at = description.get("TrainingEndTime") if is_over else None
    until = ended_at or look.at
    first_at = _first_step_at(look)
    wall = (until - first_at).total_seconds() if first_at is not None else 0.0
    goodput = min(1.0, summary.useful_seconds / wall) if summary.useful_seconds and wall > 0 else None
    rest = _rest_seconds(step, planned, paces[-1] if paces else None) if not is_over else None
    running = running_seconds(description, look.at)
    spent = spent_usd(description, look.at, price)
    return JobView(
        job_name=look.name,
        status=str(description["TrainingJobStatus"]),
        phase=str(description.get("SecondaryStatus", "")),
        message=str(transitions[-1].get("StatusMessage", "")) if transitions else "",
        is_spot=bool(description.get("EnableManagedSpotTraining")),
        instance_type=str(resources.get("InstanceType", "")),
        instance_count=int(resources.get("InstanceCount", 1)),
        attempt=_attempt(transitions),
        num_interruptions=summary.num_interruptions,
        step=step,
        total_steps=planned,
        seconds_per_step=paces[-1] if paces else None,
        metrics=_metrics(description),
        checkpoint_step=look.checkpoint.step if look.checkpoint else None,
        checkpoint_at=look.checkpoint.created_at if look.checkpoint else None,
        checkpoint_age_seconds=(
            max(0.0, (until - look.checkpoint.created_at).total_seconds()) if look.checkpoint else None
        ),
        goodput=goodput,
        running_seconds=running,
        spent_usd=spent,
        projected_usd=spent if is_over else _projected(spent, usd_per_second(description, price), rest, summary),
        price_source=price.source if price is not None else None,
        finish_at=ended_at if is_over else _finish_at(look.at, rest, goodput),
        failure_reason=description.get("FailureReason") or None,
        is_over=is_over,
        alarms=find_alarms(look, summary, asked_spot=asked_spot, is_training=last is not None and not is_over),
    )


def total_steps(look: Look) -> int | None:
    """Return after which step the training says it will be done."""
    planned = [event.total_steps for event in look.events if isinstance(event, StepsPlanned)]
    return planned[-1] if planned else None


def view_to_json(view: JobView) -> dict[str, Any]:
    """Return the view as plain JSON values, under the names they have here; instants as ISO 8601 in UTC."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(view), default=lambda at: at.isoformat()))
    return plain


def _attempt(transitions: list[Mapping[str, Any]]) -> int:
    """Return how many attempts had come to train before the one that runs or waits."""
    count, has_trained = 0, False
    for entry in transitions:
        if entry["Status"] == "Training":
            has_trained = True
        elif entry["Status"] in ("Starting", "Restarting") and has_trained:
            count, has_trained = count + 1, False
    return count


def _step(look: Look, summary: Summary) -> int | None:
    """Return the last step that is known: from the log and the events, else from the service's own metric."""
    if summary.attempts and summary.attempts[-1].last_step is not None:
        return summary.attempts[-1].last_step
    for metric in look.description.get("FinalMetricDataList") or []:
        if metric["MetricName"] == STEP_METRIC_NAME:
            return int(metric["Value"])
    return None


def _metrics(description: Mapping[str, Any]) -> dict[str, float]:
    found = {
        str(metric["MetricName"]): float(metric["Value"])
        for metric in description.get("FinalMetricDataList") or []
        if metric["MetricName"] != STEP_METRIC_NAME
    }
    ordered = sorted(found.items(), key=lambda pair: "loss" not in pair[0].lower())
    return dict(ordered[:_MAX_METRICS])


def _first_step_at(look: Look) -> datetime | None:
    created = look.description.get("CreationTime")
    times = [event.at for event in look.events if isinstance(event, Progress)]
    return min((at for at in times if created is None or at >= created), default=None)


def _rest_seconds(step: int | None, planned: int | None, pace: float | None) -> float | None:
    if step is None or planned is None or pace is None:
        return None
    return max(0, planned - step) * pace


def _finish_at(now: datetime, rest: float | None, goodput: float | None) -> datetime | None:
    if rest is None or goodput is None or not goodput > 0:
        return None
    seconds = rest / goodput
    return now + timedelta(seconds=seconds) if math.isfinite(seconds) and seconds < 1e9 else None


def _projected(spent: float | None, per_second: float | None, rest: float | None, summary: Summary) -> float | None:
    """Return what it will have cost: the rest, with as much computed twice as until now."""
    if spent is None or per_second is None or rest is None:
        return None
    useful = summary.useful_seconds or 0.0
    trained = sum(attempt.seconds or 0.0 for attempt in summary.attempts[:-1]) + useful
    more = max(1.0, trained / useful) if len(summary.attempts) > 1 and useful > 0 else 1.0
    return spent + rest * more * per_second
