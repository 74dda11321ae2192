"""Read events from where they lie: files in the checkpoint storage, and the job's log, which outlives the machine."""

from collections.abc import Iterable
from datetime import datetime

from spotproof.events import EVENT_FILE_REGEX, Event, Progress, parse_events, parse_progress_line
from spotproof.storage import Storage

__all__ = ["read_events", "read_progress"]


def read_events(storage: Storage) -> list[Event]:
    """Return the events of all attempts in the order of time; none if the program wrote none.

    The end of an attempt that was killed may be missing: what was not mirrored is gone with the machine.
    """
    events: list[Event] = []
    for entry in storage.list("events/"):
        if EVENT_FILE_REGEX.fullmatch(entry.key.rpartition("/")[2]) is None:
            continue
        try:
            text = storage.get(entry.key).decode("utf-8", errors="replace")
        except FileNotFoundError:
            continue  # a running job's mirror replaced it between the listing and the look
        events.extend(parse_events(text.splitlines()))
    return sorted(events, key=lambda event: event.at)


def read_progress(lines: Iterable[tuple[datetime, str]]) -> list[Progress]:
    """Return the progress that a log's lines tell, each with its time."""
    found = (parse_progress_line(text, at) for at, text in lines)
    return [progress for progress in found if progress is not None]
