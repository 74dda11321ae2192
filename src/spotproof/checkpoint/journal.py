"""The event file of one attempt."""

import os
from pathlib import Path

from spotproof.checkpoint.interval import DEFAULT_MEAN_UPTIME_SECONDS
from spotproof.events import EVENT_FILE_REGEX, AttemptEnded, Event, event_file, parse_events, to_line
from spotproof.storage import LocalStorage, Storage

__all__ = ["Journal", "mean_uptime_seconds", "read_events", "recorded_attempts"]


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


def mean_uptime_seconds(storage: Storage, prior_seconds: float = DEFAULT_MEAN_UPTIME_SECONDS) -> float:
    """Return the mean running time between interruptions that this run has seen so far.

    The prior counts as one interruption after *prior_seconds*, so that a single early kill does not decide alone.
    """
    total, interruptions = prior_seconds, 1
    for attempt in recorded_attempts(storage)[:-1]:  # the last one is this attempt
        events = read_events(storage, attempt)
        if events:
            total += (events[-1].at - events[0].at).total_seconds()
            interruptions += not any(isinstance(event, AttemptEnded) for event in events)
    return total / interruptions
