"""Claims: who is superseded and who is not, whatever a mirror delivers when; what a writer may remove."""

import errno
import os
import shutil

import pytest
import torch

from spotproof import CheckpointConflict
from spotproof.checkpoint import Checkpointer, committed_steps, newest_verified, read_manifest
from spotproof.checkpoint.fence import read_start
from spotproof.checkpoint.journal import read_events, recorded_attempts
from spotproof.checkpoint.manifest import manifest_key
from spotproof.events import AttemptStarted, CheckpointCommitted, SaveFailed
from spotproof.storage import LocalStorage


class Value:
    """Something with state."""

    def __init__(self):
        self.value = 0

    def state_dict(self):
        return {"w": torch.full((8,), float(self.value))}

    def load_state_dict(self, state):
        self.value = int(state["w"][0])


def attempt(folder, *steps):
    """Return an attempt that has resumed and saved *steps*."""
    checkpointer = Checkpointer(folder)
    checkpointer.register("value", value := Value())
    checkpointer.restore()
    for step in steps:
        value.value = step
        checkpointer.save(step, wait=True)
    return checkpointer


def test_a_claim_names_who_wrote_before(tmp_path):
    """The first line of an attempt's file tells who it is and whom it supersedes; each has a name of its own."""
    for _ in range(3):
        attempt(tmp_path)
    starts = [read_start(LocalStorage(tmp_path), number) for number in range(3)]
    assert len({start.writer for start in starts}) == 3
    assert [start.supersedes for start in starts] == [[], [starts[0].writer], [starts[0].writer, starts[1].writer]]


def test_event_files_that_a_mirror_delivers_late_stop_nobody(tmp_path):
    """Restored without the newest event files, an attempt takes a number that was used; then those files arrive."""
    for step in (10, 20, 30):
        attempt(tmp_path / "first", step)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    late = tmp_path / "second" / "events" / "attempt-0002.jsonl"
    content = late.read_bytes()
    late.unlink()
    manifest = tmp_path / "second" / manifest_key(30)
    manifest.unlink()
    second = attempt(tmp_path / "second")
    assert second.attempt == 2
    late.with_name("attempt-0003.jsonl").write_bytes(content.replace(b'"attempt":2', b'"attempt":3'))
    late.with_name("attempt-0004.jsonl").write_bytes(b"")

    second.save(25, wait=True)

    assert newest_verified(second.storage).step == 25
    third = attempt(tmp_path / "second", 35)
    assert third.attempt == 5
    with pytest.raises(CheckpointConflict, match="Attempt 5 writes to"):
        second.save(45, wait=True)


def test_an_older_one_still_knows_after_many_attempts(tmp_path):
    """A writer that slept through more attempts than a claim names is superseded all the same."""
    sleeper = attempt(tmp_path, 1)
    for step in range(2, 24):
        attempt(tmp_path, step)
    with pytest.raises(CheckpointConflict):
        sleeper.save(50, wait=True)
    assert newest_verified(sleeper.storage).step == 23


def test_on_a_disk_that_is_full_at_the_start_the_claim_is_made_up_for(tmp_path, monkeypatch, caplog):
    """Training begins, its saves fail with a warning, and the first that works claims the number first."""
    attempt(tmp_path, 10)
    real = os.fsync

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    late = attempt(tmp_path, 20)
    assert recorded_attempts(late.storage) == [0]
    monkeypatch.setattr(os, "fsync", real)
    late.save(30, wait=True)

    assert "No space left on device" in caplog.text
    kinds = [type(event) for event in read_events(late.storage, 1)]
    assert kinds[0] is AttemptStarted
    assert SaveFailed in kinds
    assert kinds.index(CheckpointCommitted) > kinds.index(SaveFailed)


def test_a_number_that_was_taken_meanwhile_is_a_conflict(tmp_path, monkeypatch):
    """Who could not claim at its start, and finds that another did, stops."""
    real = os.fsync

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    late = attempt(tmp_path)
    monkeypatch.setattr(os, "fsync", real)
    attempt(tmp_path, 10)
    with pytest.raises(CheckpointConflict, match="Another process became attempt 0"):
        late.save(20, wait=True)
    assert committed_steps(late.storage) == [10]


def test_the_claim_comes_back_after_the_folder_was_deleted(tmp_path):
    """A folder that is emptied under a running attempt gets its claim again, so that it can still be superseded."""
    older = attempt(tmp_path / "run", 10)
    shutil.rmtree(tmp_path / "run")
    older.save(20, wait=True)
    attempt(tmp_path / "run", 30)
    with pytest.raises(CheckpointConflict):
        older.save(40, wait=True)


def test_what_another_run_left_that_began_at_the_same_moment_is_removed(tmp_path):
    """Two runs find an empty folder; the one that claims last removes what the other has committed meanwhile."""
    winner = Checkpointer(tmp_path)
    winner.register("value", Value())
    assert winner.latest() is None
    loser = attempt(tmp_path, 0, 50)

    winner.save(0, wait=True)
    winner.save(10, wait=True)

    assert committed_steps(winner.storage) == [10, 0]
    assert {read_manifest(winner.storage, manifest_key(step)).attempt for step in (0, 10)} == {1}
    with pytest.raises(CheckpointConflict):
        loser.save(60, wait=True)


def test_a_damaged_manifest_stays_until_it_is_passed(tmp_path):
    """It may be at a step that a newer attempt makes again, so it is not removed before this one is past it."""
    first = attempt(tmp_path, 10, 20)
    (tmp_path / manifest_key(20)).write_text("{}")
    second = attempt(tmp_path, 12)
    assert committed_steps(first.storage) == [20, 12, 10]
    second.save(22, wait=True)
    second.save(32, wait=True)
    assert committed_steps(first.storage) == [32, 22]
