"""Events from files and from the log."""

from datetime import datetime, timezone
from pathlib import Path

from spotproof.events import Progress, event_file, progress_line, to_line
from spotproof.report import read_events, read_progress
from spotproof.storage import LocalStorage

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_all_attempts_are_read_and_torn_ends_are_not(tmp_path: Path) -> None:
    """Every attempt's file counts; a line cut by a kill and foreign files do not."""
    storage = LocalStorage(tmp_path)
    one = Progress(attempt=0, epoch=0, step=1, at=AT)
    two = Progress(attempt=1, epoch=0, step=2, at=AT.replace(year=2027))
    storage.put(event_file(1), [to_line(two).encode()])
    storage.put(event_file(0), [to_line(one).encode(), to_line(one).encode()[:20]])
    storage.put("events/notes.txt", [to_line(one).encode()])

    assert read_events(storage) == [one, two]


def test_progress_is_read_from_the_log() -> None:
    """Lines of the program itself are passed over."""
    line = progress_line(Progress(attempt=2, epoch=3, step=4))

    assert read_progress([(AT, "loss 0.1"), (AT, f"INFO {line}")]) == [Progress(attempt=2, epoch=3, step=4, at=AT)]
