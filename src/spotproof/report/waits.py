"""How long a job waited for machines, by the service's own status sequence. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

__all__ = ["Waits", "waits_of"]

_WAITING: Final = frozenset(
    {"Pending", "Starting", "LaunchingMLInstances", "PreparingTrainingStack", "Interrupted", "Restarting"}
)
_NO_CAPACITY: Final = "insufficient capacity"
"""Source: the service's StatusMessage, "Insufficient capacity error from EC2 while launching instances, retrying!"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """In seconds."""

    total: float
    """In Pending, Starting, Interrupted, Restarting: no instance trained, and none is billed but for its set-up."""
    without_capacity: float
    """Of these, while the service said that there was no capacity."""


def waits_of(description: Mapping[str, Any]) -> Waits | None:
    """Return the waits of the job, the one that is going on now not counted; None without a status history."""
    transitions: Sequence[Mapping[str, Any]] = description.get("SecondaryStatusTransitions") or []
    if not transitions:
        return None
    total = without = 0.0
    for index, entry in enumerate(transitions):
        following = transitions[index + 1]["StartTime"] if index + 1 < len(transitions) else None
        end: datetime | None = entry.get("EndTime") or following
        if entry["Status"] not in _WAITING or end is None:
            continue
        seconds = (end - entry["StartTime"]).total_seconds()
        total += seconds
        if _NO_CAPACITY in str(entry.get("StatusMessage", "")).lower():
            without += seconds
    return Waits(total=total, without_capacity=without)
