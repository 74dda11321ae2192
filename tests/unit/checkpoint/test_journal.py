"""Events reach their file when it can be written, and harm nobody when it can't."""

import errno
import os
import shutil

import pytest

from spotproof.checkpoint.journal import Journal, read_events, read_history, recorded_attempts
from spotproof.events import AttemptStarted, Progress, SaveFailed, Warned, event_file, to_line
from spotproof.storage import LocalStorage

STARTED = AttemptStarted(attempt=3, run_id="r", config={}, versions={})


@pytest.fixture
def journal(tmp_path):
    journal = Journal(LocalStorage(tmp_path), STARTED)
    journal.open()
    return journal


@pytest.fixture
def full_disk(monkeypatch):
    """Let writes write that many bytes and no more; None for all."""
    original, room = os.write, {"bytes": None}

    def write(fd, data):
        if room["bytes"] is None:
            return original(fd, data)
        count = min(room["bytes"], len(data))
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room["bytes"] -= count
        return original(fd, data[:count])

    monkeypatch.setattr(os, "write", write)
    return lambda num_bytes: room.update(bytes=num_bytes)


def failed(step):
    return SaveFailed(attempt=3, step=step, reason="full")


def told(tmp_path):
    return read_events(LocalStorage(tmp_path), 3)


def test_what_could_not_be_written_is_written_later_in_its_order(tmp_path, journal, full_disk):
    """Only where training stood meanwhile is not: it is told anew all the time."""
    full_disk(0)
    journal.write(failed(10))
    journal.write(Progress(attempt=3, step=11, epoch=0))
    journal.write(failed(20))
    assert told(tmp_path) == [STARTED]
    full_disk(None)
    journal.write(now := Progress(attempt=3, step=21, epoch=0))

    assert [getattr(event, "step", None) for event in told(tmp_path)] == [None, 10, 20, 21]
    assert told(tmp_path)[-1] == now


@pytest.mark.parametrize("room", [1, 30, len(to_line(failed(10))) - 1])
def test_a_line_cut_short_spoils_no_other(tmp_path, journal, full_disk, room):
    """The disk fills in the middle of a line: it goes on where it was cut."""
    full_disk(room)
    journal.write(failed(10))
    full_disk(None)
    journal.write(failed(20))

    assert [event.step for event in told(tmp_path)[1:]] == [10, 20]


def test_what_waits_is_bounded(tmp_path, journal, full_disk):
    """However long the disk stays full; how many events were lost is told."""
    full_disk(0)
    for step in range(5000):
        journal.write(failed(step))
    assert len(journal._unwritten) == 1000
    full_disk(None)
    journal.write(failed(5000))

    steps = [event.step for event in told(tmp_path) if isinstance(event, SaveFailed)]
    assert steps == list(range(1000))
    (lost,) = [event for event in told(tmp_path) if isinstance(event, Warned)]
    assert lost.message.startswith("4001 events could not be written")


def test_a_file_that_was_removed_begins_anew_with_its_first_line(tmp_path, journal):
    """Which says what run and which attempt it is of."""
    journal.write(failed(10))
    shutil.rmtree(tmp_path / "events")
    journal.write(failed(20))

    assert told(tmp_path)[0] == STARTED
    assert [event.step for event in told(tmp_path)[1:]] == [20]


def test_nothing_that_lies_in_the_way_is_raised(tmp_path):
    """A folder in place of the file, a file in place of the folder."""
    (tmp_path / "one" / event_file(3)).mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "events").touch()
    for place in ("one", "other"):
        journal = Journal(LocalStorage(tmp_path / place), STARTED)
        with pytest.raises(OSError, match=r"exists|Not a directory"):
            journal.open()
        journal.write(failed(10))


COMMITTED = '{"event":"checkpoint_committed","attempt":0,"at":"2026-01-01T00:00:00+00:00","step":1,"total_bytes":1,'
STRANGE = {
    "bytes of no text": b"\xff\xfe\x00" * 1000,
    "deep": b'{"event":' * 100_000,
    "other types": (COMMITTED + '"written_bytes":1,"stall_seconds":"x","durable_seconds":[]}\n').encode(),
    "no numbers": (COMMITTED + '"written_bytes":1,"stall_seconds":NaN,"durable_seconds":Infinity}\n').encode(),
    "a huge number": (COMMITTED + f'"written_bytes":1,"stall_seconds":{"9" * 4000},"durable_seconds":1}}\n').encode(),
    "no time zone": b'{"event":"progress","attempt":0,"at":"2026-01-01T00:00:00","step":1,"epoch":0}\n' * 2,
    "times of other ages": b'{"event":"progress","at":"0001-01-01T00:00:00+23:59"}\n{"at":"9999-12-31T23:59:59-23:59"}',
    "lists": b"[]\n" * 10,
    "fields missing": b'{"event":"checkpoint_committed"}\n{"event":7}\n{}\n',
    "a kind that is no name": b'{"event":[]}\n{"event":{}}\n',
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_strange_files_say_nothing(tmp_path, content):
    """Whatever lies there under the name of an event file is passed over."""
    storage = LocalStorage(tmp_path)
    storage.put(event_file(0), [content])

    history = read_history(storage, before=1)

    assert history.costs == ()
    assert recorded_attempts(storage) == [0]
    assert [event for event in read_events(storage, 0) if not isinstance(event.attempt, int)] == []


def test_a_file_too_large_for_memory_is_not_read(tmp_path):
    """A hole of 100 GB under the name of an event file."""
    (tmp_path / "events").mkdir()
    with open(tmp_path / event_file(0), "wb") as file:
        file.truncate(100 * 2**30)
    assert read_history(LocalStorage(tmp_path), before=1).uptimes == ()


def test_names_that_are_none_of_ours(tmp_path):
    """They neither count as attempts nor stop the count."""
    storage = LocalStorage(tmp_path)
    for name in ("attempt-0002.jsonl", "attempt-2.jsonl", "attempt-0007.jsonl.bak", "attempt-x.jsonl", "notes"):
        storage.put(f"events/{name}", [b"?"])
    (tmp_path / event_file(9)).mkdir()
    assert recorded_attempts(storage) == [2]
