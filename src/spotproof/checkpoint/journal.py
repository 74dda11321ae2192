"""The event file of one attempt, and what those of earlier attempts tell."""

import collections
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotproof.checkpoint.optimum import SaveCost
from spotproof.checkpoint.uptime import Uptime, uptime_of
from spotproof.events import (
    EVENT_FILE_REGEX,
    AttemptStarted,
    CheckpointCommitted,
    Event,
    IntervalTuned,
    PhaseEntered,
    Progress,
    SaveStalled,
    Warned,
    event_file,
    parse_events,
    to_line,
)
from spotproof.storage import LocalStorage, Storage

__all__ = ["History", "Journal", "RelayedJournal", "read_events", "read_history", "recorded_attempts", "relayed"]

_REMEMBERED_ATTEMPTS = 10
"""Interruptions come more often at some times than at others; older attempts say nothing about today."""
_TAIL_BYTES = 64 * 1024
_MAX_UNWRITTEN = 1000
"""Lines kept while they can't be written, some 200 kB."""
_MAX_FILE_BYTES = 2**28
"""Some months of one attempt. What is larger is no file of ours, and reading it might take all memory."""


class Journal:
    """Append events to ``events/attempt-NNNN.jsonl``, which begins with the claim of that number.

    In a directory each line is written at once, so that it survives a kill of the process. While that can't be done,
    as on a full disk, lines are kept, up to a bound, and written with the first that can be. An object store can't
    append: there the file is sent whole with :meth:`flush`, at each commit and at the end.
    """

    def __init__(self, storage: Storage, start: AttemptStarted) -> None:
        self.attempt = start.attempt
        self._storage = storage
        self._key = event_file(start.attempt)
        self._head = to_line(start).encode()
        """The first line, which every file begins with, also one that replaces a file that was removed."""
        self._is_open = False
        self._lines: list[bytes] = []
        self._num_sent = 0
        self._sending = threading.Lock()
        self._path = Path(storage.root, self._key) if isinstance(storage, LocalStorage) else None
        self._lock = threading.Lock()  # the training and the writer's thread both record
        self._unwritten: collections.deque[bytes] = collections.deque()
        self._num_lost = 0

    def open(self) -> None:
        """Create the file with its first line, unless that is done.

        Raises:
            FileExistsError: Another process has created it.
            OSError: The storage refused. What is written meanwhile is kept; try again.
        """
        if not self._is_open:
            self._storage.create(self._key, [self._head])
            self._is_open = True

    def write(self, event: Event) -> None:
        """Record *event*. Never raises: a full disk must not end the training that fills it."""
        data = to_line(event).encode()
        if self._path is None:
            self._lines.append(data)
            return
        with self._lock:
            if len(self._unwritten) < _MAX_UNWRITTEN:
                self._unwritten.append(data)
            else:
                self._num_lost += 1
            try:
                if not self._is_open:
                    raise BlockingIOError("not claimed yet")
                self._append(self._path)
            except OSError:
                # Where training stands is told anew each second; what is kept is what is told once.
                if isinstance(event, Progress | PhaseEntered) and self._unwritten and self._unwritten[-1] is data:
                    self._unwritten.pop()

    def _append(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened each time: the folder may be replaced under us, and one small write with O_APPEND stays whole.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            if self._unwritten[0] is not self._head and os.fstat(fd).st_size == 0:
                self._unwritten.appendleft(self._head)
            while self._unwritten or self._num_lost:
                if not self._unwritten:
                    message = f"{self._num_lost} events could not be written while {path.parent} did not take them."
                    self._unwritten.append(to_line(Warned(attempt=self.attempt, message=message)).encode())
                    self._num_lost = 0
                line = self._unwritten[0]
                written = os.write(fd, line)
                if written < len(line):  # the disk is full: the rest of the line follows when it can
                    self._unwritten[0] = line[written:]
                    return
                self._unwritten.popleft()
        finally:
            os.close(fd)

    def flush(self) -> None:
        """Make what was written durable where lines are not written at once.

        Raises:
            OSError: The storage refused.
        """
        if self._path is not None or not self._is_open:
            return
        with self._sending:
            lines = list(self._lines)
            if len(lines) > self._num_sent:
                self._storage.put(self._key, [self._head, *lines])
                self._num_sent = len(lines)


class RelayedJournal:
    """In the place of a :class:`Journal` on ranks other than 0: what only this rank knows is kept for rank 0's file."""

    def __init__(self, attempt: int, rank: int) -> None:
        self.attempt = attempt
        self._rank = rank
        self._kept: collections.deque[dict[str, Any]] = collections.deque(maxlen=_MAX_UNWRITTEN)

    def open(self) -> None:
        """Nothing to do: rank 0 has the file."""

    def write(self, event: Event) -> None:
        """Keep *event* if it tells of this rank alone; the others are told by rank 0."""
        if isinstance(event, Warned):
            self._kept.append({"message": f"Rank {self._rank}: {event.message}"})
        elif isinstance(event, SaveStalled):
            self._kept.append({"step": event.step, "seconds": event.seconds})

    def flush(self) -> None:
        """Nothing to do."""

    def taken(self) -> list[dict[str, Any]]:
        """Return what was kept, as JSON values, and keep it no longer."""
        return [self._kept.popleft() for _ in range(len(self._kept))]


def relayed(event: dict[str, Any], attempt: int) -> Event:
    """Return the event that :meth:`RelayedJournal.taken` described."""
    return Warned(attempt=attempt, **event) if "message" in event else SaveStalled(attempt=attempt, **event)


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
            entry = storage.head(event_file(attempt))
            if entry is None or entry.size_bytes > _MAX_FILE_BYTES:
                continue
            events = storage.get(entry.key)
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
        if isinstance(event, IntervalTuned) and _is_duration(event.slowdown_seconds):
            slowdown = event.slowdown_seconds
        elif isinstance(event, CheckpointCommitted) and all(
            map(_is_duration, (event.stall_seconds, event.durable_seconds))
        ):
            saves.append(event)
    return tuple(
        SaveCost(stall_seconds=save.stall_seconds, slowdown_seconds=slowdown, durable_seconds=save.durable_seconds)
        for save in saves
    )


def _is_duration(value: object) -> bool:
    """Whether *value*, from a file that may hold anything, is a number of seconds."""
    return isinstance(value, int | float) and 0 <= value < 1e9
