"""The event file of one attempt, and what those of earlier attempts tell."""

import os
from dataclasses import dataclass
from pathlib import Path

from spotproof.checkpoint.optimum import SaveCost
from spotproof.checkpoint.uptime import Uptime, uptime_of
from spotproof.events import (
    EVENT_FILE_REGEX,
    CheckpointCommitted,
    Event,
    IntervalTuned,
    event_file,
    parse_events,
    to_line,
)
from spotproof.storage import LocalStorage, Storage

__all__ = ["History", "Journal", "read_events", "read_history", "recorded_attempts"]

_REMEMBERED_ATTEMPTS = 10
"""Interruptions come more often at some times than at others; older attempts say nothing about today."""
_TAIL_BYTES = 64 * 1024


class Journal:
    """Append events to ``events/attempt-NNNN.jsonl``.

    In a directory each line is written at once, so that it survives a kill of the process. An object store can't
    append: there the file is sent whole with :meth:`flush`, at each commit.
    """

    def __init__(self, storage: Storage, attempt: int) -> None:
        self.attempt = attempt
        self._storage = storage
        self._key = event_file(attempt)
        self._lines: list[str] = []
        self._path = Path(storage.root, self._key) if isinstance(storage, LocalStorage) else None

    def write(self, event: Event) -> None:
        """Record *event*. Never raises: a full disk must not end the training that fills it."""
        line = to_line(event)
        if self._path is None:
            self._lines.append(line)
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Opened each time: the folder may be replaced under us, and one small write with O_APPEND stays whole.
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)
        except OSError:
            pass

    def flush(self) -> None:
        """Make what was written durable where lines are not written at once.

        Raises:
            OSError: The storage refused.
        """
        if self._path is None and self._lines:
            self._storage.put(self._key, [line.encode() for line in self._lines])


def recorded_attempts(storage: Storage) -> list[int]:
    """Return the attempts that left an event file, in order."""
    names = (entry.key.removeprefix("events/") for entry in storage.list("events/"))
    return sorted(int(match[1]) for match in map(EVENT_FILE_REGEX.fullmatch, names) if match)


def read_events(storage: Storage, attempt: int) -> list[Event]:
    """Return the events of *attempt*; a torn end is skipped."""
    return list(parse_events(storage.get(event_file(attempt)).decode(errors="replace").splitlines()))


@dataclass(frozen=True, slots=True)
class History:
    """What earlier attempts of a run tell about the next one."""

    uptimes: tuple[Uptime, ...] = ()
    """Of the last attempts that trained."""
    costs: tuple[SaveCost, ...] = ()
    """Of the last saves of the last attempt that trained, oldest first."""


def read_history(storage: Storage, before: int) -> History:
    """Return what the attempts below number *before* left. Files that are missing, torn or strange are passed over.

    Raises:
        OSError: The storage can't even be listed.
    """
    uptimes: list[Uptime] = []
    costs: tuple[SaveCost, ...] = ()
    for attempt in [number for number in recorded_attempts(storage) if number < before][-_REMEMBERED_ATTEMPTS:]:
        try:
            events = storage.get(event_file(attempt))
        except OSError:
            continue
        uptime = uptime_of(events)
        if uptime is not None:
            uptimes.append(uptime)
            costs = _costs(events[-_TAIL_BYTES:].decode(errors="replace")) or costs
    return History(tuple(uptimes), costs)


def _costs(text: str) -> tuple[SaveCost, ...]:
    slowdown, saves = 0.0, []
    for event in parse_events(text.splitlines()):
        if isinstance(event, IntervalTuned):
            slowdown = event.slowdown_seconds
        elif isinstance(event, CheckpointCommitted) and min(event.stall_seconds, event.durable_seconds) >= 0:
            saves.append(event)
    return tuple(
        SaveCost(stall_seconds=save.stall_seconds, slowdown_seconds=slowdown, durable_seconds=save.durable_seconds)
        for save in saves
    )
