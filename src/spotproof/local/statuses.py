"""What a job shows of itself: its rules, its transitions, and the words that go with each status."""

from dataclasses import dataclass
from typing import Final

from spotproof.contract import SecondaryStatus

__all__ = [
    "MESSAGES",
    "NO_CAPACITY",
    "RELAUNCHING",
    "REPLACING",
    "SERVER_LOST",
    "TOO_LONG_PENDING",
    "JobRules",
    "Transition",
]

MESSAGES: Final[dict[SecondaryStatus, str]] = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Interrupted": "Training job interrupted: the Spot capacity was reclaimed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
}
"""Source: job logs quoted in issues of aws/amazon-sagemaker-examples; the words for Interrupted, Stopped and the two
limits are ours: no source for them was found."""

RELAUNCHING: Final = "Launching requested ML instances"
REPLACING: Final = "Launched instance was unhealthy, replacing it!"
NO_CAPACITY: Final = "Insufficient capacity error from EC2 while launching instances, retrying!"
"""Source of these three: as above."""
SERVER_LOST: Final = "Training job interrupted: the local platform ended, and with it the machines"
TOO_LONG_PENDING: Final = "Training job was pending longer than MaxPendingTimeInSeconds"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRules:
    """What of a request the state machine needs."""

    num_hosts: int
    is_spot: bool
    max_run_seconds: float
    """Running time of all attempts together."""
    max_wait_seconds: float | None
    """Since creation, waiting and running; None on demand."""
    max_pending_seconds: float | None = None
    """Since creation, until the first instances are there."""
    max_retries: int = 0
    """Attempts after one that ended in an InternalServerError; interruptions don't count."""
    spot_price_factor: float = 0.3
    """Billable seconds of a spot job for one training second."""


@dataclass(slots=True)
class Transition:
    """One entry of SecondaryStatusTransitions."""

    status: SecondaryStatus
    start_at: float
    message: str
    end_at: float | None = None
