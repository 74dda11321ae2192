"""What a rehearsal tells while it runs; the CLI makes it visible."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from spotproof.report import Verdict

__all__ = [
    "ChaosPlanned",
    "Compared",
    "InputsUploaded",
    "JobEnded",
    "JobSubmitted",
    "OnProgress",
    "PlatformReady",
    "ProgressEvent",
    "StatusChanged",
    "Stepped",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformReady:
    """The local SageMaker answers."""

    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InputsUploaded:
    """A channel lies in S3."""

    channel: str
    num_files: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSubmitted:
    """The service took the job."""

    job_name: str
    is_spot: bool
    reclaim: str
    """The schedule, ``none`` for an undisturbed run."""
    total_steps: int | None = None
    """How many steps it will take, where that is known from an earlier run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChaosPlanned:
    """What will be done to the job was drawn."""

    seed: int
    sync_faults: str
    s3_faults: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusChanged:
    """The service's status of the job moved on."""

    job_name: str
    at: datetime
    status: str
    message: str
    attempt: int
    """The attempt this belongs to, counted from 0."""
    last_step: int | None
    """The last step the job has told before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stepped:
    """The job told how far it is."""

    job_name: str
    attempt: int
    epoch: int
    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEnded:
    """The job reached a terminal status."""

    job_name: str
    status: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """The two models were compared."""

    verdict: Verdict


ProgressEvent = (
    PlatformReady | InputsUploaded | ChaosPlanned | JobSubmitted | StatusChanged | Stepped | JobEnded | Compared
)
OnProgress = Callable[[ProgressEvent], None]
