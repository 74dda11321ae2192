"""What outlives every supervisor: the run's record, and the reasons of its stops, beside its output in S3.

    <output_path>/<run>/supervision/run.json           what was asked for; written once, never changed
    <output_path>/<run>/supervision/stop-0002.json     why job 2 is stopped; written before it is

Everything else is asked of the service: the run's jobs are ``<run>-0001``, ``<run>-0002``, …, one after another. A
supervisor that dies loses nothing, and two at once do no harm: of several who write a file, or create a job, of one
name, one succeeds.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, get_args

from spotproof.errors import SpecError
from spotproof.storage import Storage
from spotproof.supervise.decide import StopReason
from spotproof.supervise.goal import Goal, goal_from_json, goal_to_json

__all__ = [
    "RECORD_FOLDER",
    "RunRecord",
    "job_name",
    "job_number",
    "read_record",
    "read_stops",
    "write_record",
    "write_stop",
]

RECORD_FOLDER: Final = "supervision"
_RECORD: Final = "run.json"
_STOP_REGEX: Final = re.compile(r"stop-(\d{4,9})\.json")
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What was asked for, once and for all."""

    run: str
    """The beginning of its jobs' names."""
    created_at: datetime
    request: Mapping[str, Any]
    """CreateTrainingJob's, of a job on spot, with inputs in S3; each job of the run changes name and machines."""
    goal: Goal


def job_name(run: str, number: int) -> str:
    """Return the name of the run's job *number*, from 1."""
    return f"{run}-{number:04d}"


def job_number(run: str, name: str) -> int | None:
    """Return which of the run's jobs *name* is; None if it is of another run."""
    match = re.fullmatch(re.escape(run) + r"-(\d{4,9})", name)
    return int(match[1]) if match is not None else None


def write_record(storage: Storage, record: RunRecord) -> None:
    """Write the record, once.

    Raises:
        FileExistsError: There is one.
        OSError: The storage refused.
    """
    document = {
        "format": _FORMAT,
        "run": record.run,
        "created_at": record.created_at.isoformat(),
        "goal": goal_to_json(record.goal),
        "request": dict(record.request),
    }
    storage.create(_RECORD, [json.dumps(document, indent=1).encode()])


def read_record(storage: Storage) -> RunRecord:
    """Return the run's record.

    Raises:
        SpecError: There is none, or it can't be read.
        OSError: The storage did not answer.
    """
    try:
        document = json.loads(storage.get(_RECORD))
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r:.20}")
        return RunRecord(
            run=str(document["run"]),
            created_at=datetime.fromisoformat(document["created_at"]),
            request=dict(document["request"]),
            goal=goal_from_json(document["goal"]),
        )
    except FileNotFoundError:
        raise SpecError(
            f"There is no run in {storage.url}.",
            why=f"It holds no {_RECORD}.",
            do="Name the folder that `spotproof supervise` printed when the run began.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SpecError(
            f"The record of the run in {storage.url} can't be read.",
            why=f"Reading it gave: {error!r:.200}.",
            do="Was it written by a newer version of Spotproof?",
        ) from error


def write_stop(storage: Storage, number: int, reason: StopReason) -> None:
    """Say why job *number* is stopped, before it is; who says it first is right."""
    try:
        storage.create(f"stop-{number:04d}.json", [json.dumps({"reason": reason}).encode()])
    except FileExistsError:
        return


def read_stops(storage: Storage) -> dict[int, StopReason]:
    """Return why jobs were stopped, by their number."""
    found: dict[int, StopReason] = {}
    for entry in storage.list("stop-"):
        match = _STOP_REGEX.fullmatch(entry.key)
        if match is None:
            continue
        try:
            reason = json.loads(storage.get(entry.key))["reason"]
        except (ValueError, KeyError, TypeError):
            continue
        if reason in get_args(StopReason):
            found[int(match[1])] = reason
    return found
