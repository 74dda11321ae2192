"""Why a figure of the report is not known. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from spotproof.contract import TERMINAL_STATUSES
from spotproof.events import Event, Progress

__all__ = ["missing_of"]


def missing_of(description: Mapping[str, Any], events: Sequence[Event], known: Mapping[str, object]) -> dict[str, str]:
    """Return for each figure of *known* that is None why it is; the price says for itself why there is none."""
    is_over = description.get("TrainingJobStatus") in TERMINAL_STATUSES
    has_checkpoints = bool((description.get("CheckpointConfig") or {}).get("S3Uri"))
    if any(isinstance(event, Progress) for event in events):
        no_steps = "too few steps are known"
    elif has_checkpoints:
        no_steps = "neither its checkpoint place nor its log tells of steps: SpotCheckpoint does so"
    else:
        no_steps = "it has no checkpoint place, and its log tells of no steps: SpotCheckpoint does so"
    running = "it is still running" if not is_over else "the service gives none: it did not come to train"
    reasons = {
        "training_seconds": running,
        "billable_seconds": running,
        "wall_seconds": "it is still running" if not is_over else "the service gives no end",
        "waiting_seconds": "the service gives no status history",
        "useful_seconds": no_steps,
        "lost_seconds": no_steps,
        "undisturbed_seconds": _no_baseline(description, no_steps),
    }
    return {name: reasons[name] for name, value in known.items() if value is None and name in reasons}


def _no_baseline(description: Mapping[str, Any], no_steps: str) -> str:
    if description.get("TrainingJobStatus") != "Completed":
        return "the job has not completed, so its length is not known"
    return f"no undisturbed run was made, and none can be estimated: {no_steps}"
