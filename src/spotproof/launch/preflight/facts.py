"""What the checks are made of: seen, missing, or not to be seen from here. No code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from spotproof.project import SourceLook

__all__ = ["Bucket", "Caller", "Checkpoints", "Facts", "Image", "Missing", "Objects", "Role", "Unseen"]


@dataclass(frozen=True, slots=True)
class Unseen:
    """It could not be looked at; says nothing about it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Missing:
    """It is not there."""

    text: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credentials are in use."""

    account: str
    arn: str


@dataclass(frozen=True, slots=True)
class Role:
    """The role the job runs as."""

    trusts_sagemaker: bool
    """Whether its trust policy lets SageMaker take it on."""
    may_be_passed: "bool | Unseen"
    """Whether the caller may give it to SageMaker, as far as a simulation of the policies tells."""


@dataclass(frozen=True, slots=True)
class Image:
    """The training image in ECR."""

    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that can be reached."""

    region: str | None


@dataclass(frozen=True, slots=True)
class Objects:
    """What lies below a prefix."""

    num_objects: int
    size_bytes: int
    has_more: bool = False
    """These are the first of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoints:
    """What lies where the job's checkpoints go."""

    num_objects: int
    newest_step: int | None = None
    """Of the newest manifest; None if there is none."""
    run_id: str | None = None
    job_name: str | None = None
    """The job whose attempt was the last to write there."""
    saved_at: datetime | None = None
    damage: str | None = None
    """Why the newest manifest can't be read."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that was looked at for one job."""

    now: datetime
    is_local: bool
    """The service runs on this machine: no registry, no quotas, any role."""
    region: str | None
    known_types: frozenset[str]
    """Instance types in the service's model."""
    caller: Caller | Unseen | Missing
    role: Role | Unseen | Missing
    image: Image | Unseen | Missing
    buckets: Mapping[str, Bucket | Unseen | Missing]
    inputs: Mapping[str, Objects | Unseen | Missing]
    """Channels that lie in S3 or on this machine."""
    checkpoints: Checkpoints | Unseen | None
    """None for a job without checkpoints."""
    writers: tuple[str, ...] | Unseen = ()
    """Jobs that run now and write to the job's checkpoint prefix, to one in it, or to one that it is in."""
    quota: Mapping[str, float] | Unseen = field(default_factory=lambda: Unseen("not looked at"))
    """How many machines of each type the account may have at once."""
    source: SourceLook | None = None
    """What the program's code says; None if it is not here."""
