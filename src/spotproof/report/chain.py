"""Several jobs that go on from one another's checkpoints, as one. Pure.

Five epochs and then two more; managed spot, and on demand to the end.
"""

import dataclasses
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spotproof.report.savings import aws_savings_percent, net_savings_percent
from spotproof.report.summary import Summary, to_json

__all__ = ["Chain", "chain_of", "chain_to_json", "in_order", "shares_checkpoints"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """What all jobs did together. A figure that one of them lacks is None, and *missing* says which."""

    jobs: tuple[Summary, ...]
    """In the order in which they were created."""
    final_step: int | None
    num_interruptions: int
    lost_steps: int
    """Within the jobs, and from one to the next."""
    lost_between_steps: int
    """Of these, from one job to the next: steps after the checkpoint that the next one went on from."""
    lost_seconds: float | None
    waiting_seconds: float | None
    training_seconds: float | None
    billable_seconds: float | None
    aws_savings_percent: float | None
    undisturbed_seconds: float | None
    """One on-demand run over all steps: estimated, as :func:`spotproof.report.runs.undisturbed_seconds` does."""
    net_savings_percent: float | None
    """In money where there are prices, else in seconds."""
    usd: float | None
    on_demand_usd: float | None
    undisturbed_usd: float | None
    missing: Mapping[str, str]


def in_order(descriptions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the jobs by the time of their creation."""
    return sorted(descriptions, key=lambda description: description["CreationTime"])


def shares_checkpoints(description: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether both jobs have the same checkpoint prefix."""
    uris = [(each.get("CheckpointConfig") or {}).get("S3Uri", "").rstrip("/") for each in (description, other)]
    return bool(uris[0]) and uris[0] == uris[1]


def chain_of(jobs: Sequence[Summary]) -> Chain:
    """Return what *jobs*, in their order, did together."""
    missing: dict[str, str] = {}

    def total(name: str, values: Sequence[float | None]) -> float | None:
        lacking = [job.job_name for job, value in zip(jobs, values, strict=True) if value is None]
        if lacking:
            missing[name] = f"not known of {', '.join(lacking)}"
            return None
        return sum(value for value in values if value is not None)

    between = [_lost_between(before, after) for before, after in itertools.pairwise(jobs)]
    training = total("training_seconds", [job.training_seconds for job in jobs])
    billable = total("billable_seconds", [job.billable_seconds for job in jobs])
    usd = total("usd", [job.cost.usd for job in jobs])
    undisturbed = _undisturbed_seconds(jobs)
    if undisturbed is None:
        missing["undisturbed_seconds"] = "the last job has not completed, or the pace of the steps is not known"
    last = jobs[-1]
    rate = last.cost.usd_per_hour
    undisturbed_usd = None if undisturbed is None or rate is None else undisturbed / 3600 * rate * last.instance_count
    if usd is not None and undisturbed_usd is not None:
        net = net_savings_percent(usd, undisturbed_usd)
    elif billable is not None and undisturbed is not None:
        net = net_savings_percent(billable, undisturbed)
    else:
        net = None
    return Chain(
        jobs=tuple(jobs),
        final_step=next((job.final_step for job in reversed(jobs) if job.final_step is not None), None),
        num_interruptions=sum(job.num_interruptions for job in jobs),
        lost_steps=sum(job.lost_steps for job in jobs) + sum(between),
        lost_between_steps=sum(between),
        lost_seconds=total("lost_seconds", [job.lost_seconds for job in jobs]),
        waiting_seconds=total("waiting_seconds", [job.waiting_seconds for job in jobs]),
        training_seconds=training,
        billable_seconds=billable,
        aws_savings_percent=None if training is None or billable is None else aws_savings_percent(training, billable),
        undisturbed_seconds=undisturbed,
        net_savings_percent=net,
        usd=usd,
        on_demand_usd=total("on_demand_usd", [job.cost.on_demand_usd for job in jobs]),
        undisturbed_usd=undisturbed_usd,
        missing=missing,
    )


def chain_to_json(chain: Chain) -> dict[str, Any]:
    """Return the chain's numbers as plain JSON values: the totals, and each job as a single report has it."""
    fields = {field.name: getattr(chain, field.name) for field in dataclasses.fields(chain) if field.name != "jobs"}
    plain: dict[str, Any] = json.loads(json.dumps(fields))
    return {"jobs": [to_json(job) for job in chain.jobs], "total": plain}


def _lost_between(before: Summary, after: Summary) -> int:
    """Return the steps of *before* that *after* computed again."""
    resumed = next((each.resumed_from_step for each in after.attempts if each.resumed_from_step is not None), None)
    if before.final_step is None or resumed is None:
        return 0
    return max(0, before.final_step - resumed)


def _undisturbed_seconds(jobs: Sequence[Summary]) -> float | None:
    attempts = [attempt for job in jobs for attempt in job.attempts]
    paces = [attempt.seconds_per_step for attempt in attempts if attempt.seconds_per_step is not None]
    last = jobs[-1]
    if last.status != "Completed" or not paces or last.finish_seconds is None or last.final_step is None:
        return None
    first = attempts[0]
    if first.start_up_seconds is None:
        return None
    num_steps = last.final_step - (first.resumed_from_step or 0)
    return first.start_up_seconds + num_steps * statistics.median(paces) + last.finish_seconds
