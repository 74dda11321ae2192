"""Events: what happened in a training run, one JSON line each. The only thing a report reads.

An attempt appends its events to ``events/attempt-0003.jsonl`` in the checkpoint directory, which the platform
mirrors. The file's end may be missing or torn after a kill: readers skip an incomplete last line. Progress is also
printed to the job's log as a line of its own, because the log outlives the machine: :func:`progress_line`,
:func:`parse_progress_line`.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, ClassVar

from spotproof.contract import PROGRESS_LINE_REGEX

__all__ = [
    "EVENT_FILE_REGEX",
    "SCHEMA_VERSION",
    "AttemptEnded",
    "AttemptStarted",
    "CheckpointCommitted",
    "CheckpointDropped",
    "CheckpointRejected",
    "Event",
    "IntervalTuned",
    "LoggerOpened",
    "NoticeReceived",
    "PhaseEntered",
    "Progress",
    "Resumed",
    "SaveFailed",
    "SavePostponed",
    "SaveStalled",
    "StepsPlanned",
    "Warned",
    "event_file",
    "parse_events",
    "parse_progress_line",
    "progress_line",
    "to_line",
]

SCHEMA_VERSION = 1
EVENT_FILE_REGEX = re.compile(r"attempt-(\d{4,})\.jsonl")


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in one attempt."""

    kind: ClassVar[str] = ""
    attempt: int
    """The attempt it happened in, counted from 0."""
    at: datetime = field(default_factory=_now)
    """When, in UTC."""


@dataclass(frozen=True, kw_only=True)
class AttemptStarted(Event):
    """A training process began; always the first line of its file."""

    kind: ClassVar[str] = "attempt_started"
    schema: int = SCHEMA_VERSION
    run_id: str
    """Same for all attempts of a run."""
    config: dict[str, Any]
    """The effective configuration."""
    versions: dict[str, str]
    """Of python, torch, lightning, spotproof."""
    writer: str = ""
    """Which process it is: host, process id, and a part that no other process has."""
    supersedes: list[str] = field(default_factory=list)
    """The writers of the attempts before it that it found here; each of them must stop."""


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """A checkpoint was loaded and training goes on from its step."""

    kind: ClassVar[str] = "resumed"
    step: int
    seconds: float
    """Reading, verifying and applying the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """The optimizer step that was last completed."""

    kind: ClassVar[str] = "progress"
    step: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class StepsPlanned(Event):
    """How long the training is, where it says so beforehand. It may still end earlier."""

    kind: ClassVar[str] = "steps_planned"
    total_steps: int
    """The optimizer step after which it is done."""


@dataclass(frozen=True, kw_only=True)
class PhaseEntered(Event):
    """The loop entered another phase: ``train``, ``validate``."""

    kind: ClassVar[str] = "phase_entered"
    phase: str
    step: int


@dataclass(frozen=True, kw_only=True)
class CheckpointCommitted(Event):
    """A checkpoint is durable in its storage."""

    kind: ClassVar[str] = "checkpoint_committed"
    step: int
    stall_seconds: float
    """How long training stood still for it."""
    durable_seconds: float
    """From the end of the stall to the commit."""
    total_bytes: int
    """Size of the state."""
    written_bytes: int
    """Of these, bytes that were not stored already."""


@dataclass(frozen=True, kw_only=True)
class SavePostponed(Event):
    """A save came due while the one before was still being written; it is made as soon as that is durable."""

    kind: ClassVar[str] = "save_postponed"
    step: int


@dataclass(frozen=True, kw_only=True)
class SaveStalled(Event):
    """A save takes much longer than usual; until it is through, nothing newer is safe."""

    kind: ClassVar[str] = "save_stalled"
    step: int
    """The one that is being saved."""
    seconds: float
    """How long it has been under way."""


@dataclass(frozen=True, kw_only=True)
class SaveFailed(Event):
    """A checkpoint could not be written; training goes on, the older ones stay."""

    kind: ClassVar[str] = "save_failed"
    step: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CheckpointRejected(Event):
    """A checkpoint did not verify and was passed over for the next older one."""

    kind: ClassVar[str] = "checkpoint_rejected"
    step: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CheckpointDropped(Event):
    """Retention removed a checkpoint."""

    kind: ClassVar[str] = "checkpoint_dropped"
    step: int


@dataclass(frozen=True, kw_only=True)
class IntervalTuned(Event):
    """In ``auto`` mode: saves are made in another interval than before, by a fifth at least."""

    kind: ClassVar[str] = "interval_tuned"
    seconds: float
    """From the beginning of one save to that of the next."""
    bound: str
    """What decided; see :class:`spotproof.checkpoint.optimum.Choice`."""
    optimum_seconds: float
    """What would lose least, without budget and bounds."""
    stall_seconds: float
    """How long a save stops training."""
    slowdown_seconds: float
    """What steps take longer, all together, while a save is written."""
    durable_seconds: float
    """From the end of the stall to the commit."""
    mean_uptime_seconds: float
    """Between interruptions, as it is expected."""
    interruptions: int
    """That this expectation rests on; with 0 it is an assumption."""
    budget: float
    """Share of the time that stalls and slowed steps may take."""
    reason: str
    """The same for people, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class LoggerOpened(Event):
    """A logger writes to a folder: who looks at the curves finds them there."""

    kind: ClassVar[str] = "logger_opened"
    logger: str
    """Its class."""
    folder: str
    """As the training process sees it, or ``s3://…``."""


@dataclass(frozen=True, kw_only=True)
class NoticeReceived(Event):
    """The machine will be taken: a signal arrived."""

    kind: ClassVar[str] = "notice_received"
    signal: str
    step: int


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something a person should know, once."""

    kind: ClassVar[str] = "warned"
    message: str


@dataclass(frozen=True, kw_only=True)
class AttemptEnded(Event):
    """Training ended on purpose: ``finished``, ``notice`` or ``error``. A kill leaves no such event."""

    kind: ClassVar[str] = "attempt_ended"
    outcome: str
    step: int


_KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}


def event_file(attempt: int) -> str:
    """Return the key of *attempt*'s event file, relative to the checkpoint directory."""
    return f"events/attempt-{attempt:04d}.jsonl"


def to_line(event: Event) -> str:
    """Return *event* as one JSON line, newline included."""
    fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    fields["at"] = event.at.isoformat(timespec="microseconds")
    return json.dumps({"event": event.kind, **fields}, separators=(",", ":"), allow_nan=False, default=str) + "\n"


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of one file in their order.

    Lines that are cut short, and kinds or fields that a newer version added, are skipped: a file that was being
    written when the machine went away is the normal case.
    """
    for line in lines:
        try:
            fields = json.loads(line)
            cls = _KINDS.get(fields.pop("event"))
            if cls is None:
                continue
            fields["at"] = datetime.fromisoformat(fields["at"])
            if fields["at"].tzinfo is None:
                continue
            known = {f.name for f in dataclasses.fields(cls)}
            yield cls(**{name: value for name, value in fields.items() if name in known})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue


def progress_line(event: Progress) -> str:
    """Return the log line that tells *event*; :data:`spotproof.contract.PROGRESS_LINE_REGEX` matches it."""
    return f"[spotproof] attempt={event.attempt} epoch={event.epoch} step={event.step}"


def parse_progress_line(line: str, at: datetime) -> Progress | None:
    """Return the progress that a log *line* tells, or None if it tells none; *at* is the log's own time of the line."""
    found = re.search(PROGRESS_LINE_REGEX, line)
    if found is None:
        return None
    attempt, epoch, step = map(int, found.groups())
    return Progress(attempt=attempt, epoch=epoch, step=step, at=at)
