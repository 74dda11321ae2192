"""What the state machine is told (events) and what it asks for (actions).

Every event that belongs to an attempt carries its number, so that a late one can't touch the attempt that runs now.
"""

from dataclasses import dataclass

__all__ = [
    "Action",
    "AttemptEvent",
    "CapacityFound",
    "CapacityMissing",
    "Discard",
    "Event",
    "HostExited",
    "HostsGone",
    "Kill",
    "PreparationFailed",
    "Prepare",
    "Prepared",
    "ReclaimDue",
    "RequestCapacity",
    "ServerLost",
    "Start",
    "StopRequested",
    "Terminate",
    "TimePassed",
    "Upload",
    "UploadFailed",
    "Uploaded",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened."""

    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class AttemptEvent(Event):
    """Something happened to one attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class CapacityFound(AttemptEvent):
    """There are instances for the attempt."""


@dataclass(frozen=True, slots=True)
class CapacityMissing(AttemptEvent):
    """There are none for now; the attempt waits in the queue."""


@dataclass(frozen=True, slots=True)
class Prepared(AttemptEvent):
    """Hosts, inputs and checkpoints are in place."""


@dataclass(frozen=True, slots=True)
class PreparationFailed(AttemptEvent):
    """They can't be."""

    reason: str
    """As it goes into FailureReason: ``ClientError: …`` or ``InternalServerError: …``."""


@dataclass(frozen=True, slots=True)
class HostExited(AttemptEvent):
    """A host's PID 1 ended."""

    host: int
    code: int
    """128 + N for signal N."""
    failure_text: str
    """What the job wrote to output/failure."""


@dataclass(frozen=True, slots=True)
class ReclaimDue(AttemptEvent):
    """The attempt's capacity is taken away."""

    grace_seconds: float


@dataclass(frozen=True, slots=True)
class HostsGone(AttemptEvent):
    """After Kill: no process of the attempt is left, and all it wrote to its log can be read."""


@dataclass(frozen=True, slots=True)
class Uploaded(AttemptEvent):
    """Checkpoints and artifacts are in S3."""


@dataclass(frozen=True, slots=True)
class UploadFailed(AttemptEvent):
    """They could not be put there."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """The user called StopTrainingJob."""


@dataclass(frozen=True, slots=True)
class TimePassed(Event):
    """The state's deadline may have come."""


@dataclass(frozen=True, slots=True)
class ServerLost(Event):
    """The platform itself had ended, and every process with it; it is back, and does what this returns."""

    lost_at: float
    """When it was last known to live."""
    has_files: bool
    """Whether the directories of the attempt's hosts are still as its processes left them."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do for one attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class RequestCapacity(Action):
    """Send CapacityFound once there are instances."""


@dataclass(frozen=True, slots=True)
class Prepare(Action):
    """Make the hosts, download inputs, restore checkpoints; send Prepared or PreparationFailed."""


@dataclass(frozen=True, slots=True)
class Start(Action):
    """Let the job's command run on every host; send HostExited for each that ends."""


@dataclass(frozen=True, slots=True)
class Terminate(Action):
    """SIGTERM to every PID 1."""


@dataclass(frozen=True, slots=True)
class Kill(Action):
    """SIGKILL every process of the attempt; send HostsGone when none is left."""

    keep_files: bool
    """False: the machines are lost, so that nothing may be uploaded any more, not even what is under way."""


@dataclass(frozen=True, slots=True)
class Upload(Action):
    """Drain the sync agents, upload the artifacts; send Uploaded or UploadFailed."""

    has_model: bool


@dataclass(frozen=True, slots=True)
class Discard(Action):
    """Remove everything the attempt left on its hosts."""
