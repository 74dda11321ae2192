"""Events survive the way through their files and the log."""

from datetime import datetime, timezone

from spotproof.events import (
    AttemptStarted,
    CheckpointCommitted,
    Progress,
    parse_events,
    parse_progress_line,
    progress_line,
    to_line,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
EVENTS = [
    AttemptStarted(attempt=0, at=AT, run_id="r", config={"keep": 2}, versions={"python": "3.11"}),
    CheckpointCommitted(
        attempt=0, at=AT, step=7, stall_seconds=0.1, durable_seconds=0.2, total_bytes=10, written_bytes=5
    ),
]


def test_round_trip():
    """Every event comes back equal."""
    assert list(parse_events(map(to_line, EVENTS))) == EVENTS


def test_a_torn_end_and_unknown_lines_are_skipped():
    """A file that was being written when the machine went away is the normal case."""
    first, second = map(to_line, EVENTS)
    lines = [first, '{"event":"from_the_future","attempt":0}\n', "\n", "[]\n", second[:-20]]
    assert list(parse_events(lines)) == EVENTS[:1]


def test_fields_of_a_newer_version_are_ignored():
    """An older reader still reads the rest."""
    line = to_line(EVENTS[1]).replace('"step":7', '"step":7,"new":1')
    assert list(parse_events([line])) == [EVENTS[1]]


def test_progress_goes_through_the_log():
    """The line is found inside whatever a log puts around it."""
    event = Progress(attempt=2, step=120, epoch=3, at=AT)
    assert parse_progress_line(f"2026-01-02 {progress_line(event)} …", AT) == event
    assert parse_progress_line("step=120", AT) is None
