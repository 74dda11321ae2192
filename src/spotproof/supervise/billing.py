"""What a job has cost so far, by the service's own figures where it gives them. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from spotproof.contract import TERMINAL_STATUSES
from spotproof.plan import Price

__all__ = ["running_seconds", "spent_usd", "usd_per_second"]

_BILLED: Final = ("Downloading", "Training", "Uploading")
"""Source: docs.aws.amazon.com, "Amazon SageMaker AI Training Storage": download and upload count as billable."""


def running_seconds(description: Mapping[str, Any], now: datetime) -> float:
    """Return how long the job has had machines: the service's TrainingTimeInSeconds once it is over, before that from
    its status history. Of one instance; waiting for capacity does not count."""
    told = description.get("TrainingTimeInSeconds")
    if description["TrainingJobStatus"] in TERMINAL_STATUSES and told is not None:
        return float(told)
    transitions = description.get("SecondaryStatusTransitions") or []
    total, has_machine = 0.0, False
    for index, entry in enumerate(transitions):
        # A job that is being stopped keeps its machines until it has saved; one that waited has none to keep.
        has_machine = entry["Status"] in _BILLED or (entry["Status"] == "Stopping" and has_machine)
        if has_machine:
            is_last = index + 1 == len(transitions)
            is_open = is_last and description["TrainingJobStatus"] not in TERMINAL_STATUSES
            end = now if is_open else entry.get("EndTime") or (now if is_last else transitions[index + 1]["StartTime"])
            total += max(0.0, (end - entry["StartTime"]).total_seconds())
    return total


def usd_per_second(description: Mapping[str, Any], price: Price | None) -> float | None:
    """Return what the job's machines cost while it has them, all together; None without a price."""
    if price is None:
        return None
    is_spot = bool(description.get("EnableManagedSpotTraining"))
    usd = price.spot_usd_per_hour if is_spot else price.on_demand_usd_per_hour
    return None if usd is None else usd * _num_instances(description) / 3600


def spent_usd(description: Mapping[str, Any], now: datetime, price: Price | None) -> float | None:
    """Return what the job has cost up to *now*; None without a price.

    Once it is over: BillableTimeInSeconds, which is on-demand time after the discount, at the on-demand price. Before
    that, and without that price: the time it had machines at their price.
    """
    billable = description.get("BillableTimeInSeconds")
    is_over = description["TrainingJobStatus"] in TERMINAL_STATUSES
    if price is not None and is_over and billable is not None and price.on_demand_usd_per_hour is not None:
        return float(billable) * price.on_demand_usd_per_hour * _num_instances(description) / 3600
    per_second = usd_per_second(description, price)
    return None if per_second is None else running_seconds(description, now) * per_second


def _num_instances(description: Mapping[str, Any]) -> int:
    return int((description.get("ResourceConfig") or {}).get("InstanceCount", 1))
