"""What a person should be told about a running job before it costs a day. Pure."""

import statistics
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from spotproof.events import (
    CheckpointRejected,
    Event,
    Progress,
    SaveFailed,
    SaveStalled,
    Warned,
)
from spotproof.report import Summary
from spotproof.report.figures import format_seconds
from spotproof.supervise.look import Look, commit_gaps

__all__ = ["Alarm", "find_alarms"]

_UNKNOWN_INTERVAL_POLLS: Final = 90
"""Looks without any checkpoint before that is said, where no interval was measured: 15 min on AWS."""
_MIRROR_POLLS: Final = 6
"""What the mirror may be behind, in looks: a minute on AWS."""
_SILENT_POLLS: Final = 60
"""Looks without a line of the log before that is said: 10 min on AWS."""
_INTERVALS: Final = 3
"""A save may come due while another is written, and be made up for at the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """Something that needs a person; the same is told once."""

    kind: str
    """``not-spot``, ``no-checkpoint-place``, ``no-checkpoint``, ``began-anew``, ``silent`` or ``program``."""
    key: str
    """Two alarms with one key are the same."""
    what: str
    do: str = ""


def find_alarms(look: Look, summary: Summary, *, asked_spot: bool | None, is_training: bool) -> tuple[Alarm, ...]:
    """Return what is wrong with the job now.

    Args:
        look: The job at one moment.
        summary: The same in numbers.
        asked_spot: Whether it was submitted for managed spot; None if that is not known.
        is_training: Whether an attempt has begun to train and the job is not over.
    """
    found: list[Alarm] = []
    has_wait = "MaxWaitTimeInSeconds" in (look.description.get("StoppingCondition") or {})
    if not summary.is_spot and (asked_spot or (asked_spot is None and has_wait)):
        found.append(
            Alarm(
                kind="not-spot",
                key="not-spot",
                what="Spot was asked for, and the service runs the job on demand: EnableManagedSpotTraining is false.",
                do="It costs the full price. Stop it, and submit it anew with the flag set.",
            )
        )
    if summary.is_spot and look.checkpoint_s3_uri is None:
        found.append(
            Alarm(
                kind="no-checkpoint-place",
                key="no-checkpoint-place",
                what="A managed spot job without CheckpointConfig: each reclaim begins from nothing.",
                do="Stop it, and submit it with checkpoint_s3_uri.",
            )
        )
    if is_training and look.description.get("SecondaryStatus") == "Training":
        found += [alarm for alarm in (_no_checkpoint(look, summary), _silent(look)) if alarm is not None]
    found += [
        Alarm(
            kind="began-anew",
            key=f"began-anew-{attempt.number}",
            what=f"Attempt {attempt.number} began anew, from step 0, though there had been progress before it.",
            do="Does the program save to the checkpoint directory, and load from it? See `spotproof rehearse`.",
        )
        for attempt in summary.attempts
        if attempt.began_anew
    ]
    return (*found, *_of_program(look))


def _no_checkpoint(look: Look, summary: Summary) -> Alarm | None:
    """The copying to S3 can stop without a word, and the job trains on: then a reclaim costs all since."""
    uri, began_at = look.checkpoint_s3_uri, _began_at(look)
    if uri is None or began_at is None or look.place_read_at is None:
        return None
    saved_at = look.checkpoint.created_at if look.checkpoint else None
    since = max(began_at, saved_at) if saved_at is not None else began_at
    interval = _measured_interval(look.events, summary)
    if interval is None:
        limit, expected = _UNKNOWN_INTERVAL_POLLS * look.poll_seconds, "how often it saves is not known"
    else:
        durable = summary.durable_seconds.p95 if summary.durable_seconds else 0.0
        limit = _INTERVALS * interval + durable + _MIRROR_POLLS * look.poll_seconds
        expected = f"it saved every {format_seconds(interval)} until then"
    age = (look.place_read_at - since).total_seconds()
    if age <= limit:
        return None
    newest = f"the newest is of step {look.checkpoint.step}" if look.checkpoint else "there is none"
    return Alarm(
        kind="no-checkpoint",
        # Once for each stall: a checkpoint that comes ends it.
        key=f"no-checkpoint-{look.checkpoint.step if look.checkpoint else None}-{began_at.isoformat()}",
        what=f"No checkpoint has reached {uri} for {format_seconds(age)}: {newest}, and {expected}. "
        "The copying to S3 may have stopped, which the service does not tell.",
        do="See the log for failed saves. A stop copies once more: `spotproof stop JOB --wait` says which step is safe "
        "then; submit it anew with the same checkpoint_s3_uri.",
    )


def _silent(look: Look) -> Alarm | None:
    began_at = _began_at(look)
    heard_at = max((at for at in (look.last_line_at, began_at) if at is not None), default=None)
    if heard_at is None:
        return None
    silent = (look.at - heard_at).total_seconds()
    if silent <= _SILENT_POLLS * look.poll_seconds:
        return None
    return Alarm(
        kind="silent",
        key=f"silent-{heard_at.isoformat()}",
        what=f"The log has been silent for {format_seconds(silent)}, in the midst of training.",
        do="It may hang: a rank that waits for another, a loader that died. `spotproof stop JOB --wait`, then resume.",
    )


def _of_program(look: Look) -> list[Alarm]:
    """What the program itself has warned of in this job, each once."""
    created = look.description.get("CreationTime")
    found: dict[str, Alarm] = {}
    for event in look.events:
        text = _program_text(event)
        if text is not None and (created is None or event.at >= created):
            found.setdefault(text, Alarm(kind="program", key=f"program-{text}", what=text))
    return list(found.values())


def _program_text(event: Event) -> str | None:
    if isinstance(event, Warned):
        return event.message
    if isinstance(event, SaveFailed):
        return f"The save of step {event.step} failed: {event.reason}"
    if isinstance(event, SaveStalled):
        return f"The save of step {event.step} has been under way for {format_seconds(event.seconds)}."
    if isinstance(event, CheckpointRejected):
        return f"Checkpoint {event.step} did not verify and was passed over: {event.reason}"
    return None


def _began_at(look: Look) -> datetime | None:
    """Return when the running attempt did its first step, else when it entered Training."""
    transitions = look.description.get("SecondaryStatusTransitions") or []
    entered = [entry["StartTime"] for entry in transitions if entry["Status"] == "Training"]
    if not entered:
        return None
    steps = [event.at for event in look.events if isinstance(event, Progress) and event.at >= entered[-1]]
    return min(steps, default=entered[-1])


def _measured_interval(events: tuple[Event, ...], summary: Summary) -> float | None:
    """Return the time between two saves: as it is set, or as they have come."""
    tuned = summary.interval_seconds
    gaps = commit_gaps(events)
    seen = statistics.median(gaps) if gaps else None
    return max(tuned, seen or 0.0) if tuned is not None else seen
