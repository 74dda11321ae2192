"""Saves that fail: said once, tried again with pauses, and nothing of them left that lies."""

import errno
import logging
import os
import stat

import pytest
import torch

from spotproof import CheckpointUnreadable, SpecError
from spotproof.checkpoint import Checkpointer, committed_steps, newest_verified, read_manifest, verify
from spotproof.checkpoint.choose import newest
from spotproof.checkpoint.journal import read_events
from spotproof.checkpoint.manifest import manifest_key
from spotproof.events import CheckpointCommitted, SaveFailed, Warned
from spotproof.storage import LocalStorage


class Values:
    def __init__(self):
        self.state = {"w": torch.zeros(64)}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


@pytest.fixture
def values():
    return Values()


@pytest.fixture
def checkpointer(tmp_path, values):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.register("values", values)
    return checkpointer


def save(checkpointer, values, step):
    values.state["w"] = torch.full((64,), float(step))
    checkpointer.save(step, wait=True)


def refusing(number):
    def call(*args):
        raise OSError(number, os.strerror(number))

    return call


def test_many_failures_are_told_a_few_times(tmp_path, checkpointer, values, monkeypatch, caplog):
    """One warning, events at the 1st, 2nd, 4th … failure, and nothing that grows with them."""
    save(checkpointer, values, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refusing(errno.ENOSPC))
        for step in range(2, 302):
            save(checkpointer, values, step)
    assert len(checkpointer.writer._reasons) == 1
    save(checkpointer, values, 302)

    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2, said
    assert "No space left on device" in said[0]
    assert "after 300 saves that failed" in said[1]
    failed = [event.step - 1 for event in read_events(LocalStorage(tmp_path), 0) if isinstance(event, SaveFailed)]
    assert failed == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert checkpointer.writer._reasons == set()


def test_after_a_failure_there_is_a_pause(checkpointer, values, monkeypatch):
    """Longer than the try took, so that a disk that refuses at once costs training next to nothing."""
    import time

    save(checkpointer, values, 1)
    assert checkpointer.writer.retry_at < time.monotonic()
    monkeypatch.setattr(os, "replace", refusing(errno.EIO))
    began = time.monotonic()
    save(checkpointer, values, 2)
    ended = time.monotonic()
    assert checkpointer.writer.retry_at - ended > 5 * (ended - began) or ended - began > 1


def test_a_manifest_of_unknown_durability_does_not_stay(tmp_path, checkpointer, values, monkeypatch):
    """Its folder's fsync failed, so it is there or not: later saves do not count on it, nor take its packs only."""
    save(checkpointer, values, 1)
    original = os.fsync

    def fsync(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode) and (tmp_path / manifest_key(2)).exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        save(checkpointer, values, 2)
    assert committed_steps(LocalStorage(tmp_path)) == [2, 1]  # it is there

    for step in (3, 4, 5):
        save(checkpointer, values, step)
        storage = LocalStorage(tmp_path)
        for found in committed_steps(storage):
            verify(storage, read_manifest(storage, manifest_key(found)))
    assert committed_steps(storage) == [5, 4]


def test_old_checkpoints_that_stay_are_told_once(tmp_path, checkpointer, values, monkeypatch, caplog):
    """A folder whose files can't be removed is no reason to fail, nor to say so at each save."""
    monkeypatch.setattr(LocalStorage, "delete", lambda self, key: refusing(errno.EPERM)())
    for step in range(1, 9):
        save(checkpointer, values, step)

    assert newest_verified(LocalStorage(tmp_path)).step == 8
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "could not be removed" in said[0]
    assert len([event for event in read_events(LocalStorage(tmp_path), 0) if isinstance(event, Warned)]) == 1


def test_the_newest_checkpoint_is_missed_and_old_ones_are_not(tmp_path, checkpointer, values, caplog):
    """Pruned by hand, an old one may go; if the newest goes, something cleans up that should not."""
    for step in (1, 2):
        save(checkpointer, values, step)
    (tmp_path / manifest_key(1)).unlink()
    save(checkpointer, values, 3)
    assert caplog.records == []

    (tmp_path / manifest_key(3)).unlink()
    save(checkpointer, values, 4)
    assert "The newest checkpoint, of step 3, was removed" in caplog.text
    assert committed_steps(LocalStorage(tmp_path)) == [4, 2]


def test_a_file_in_place_of_the_folder_is_told_before_training(tmp_path):
    """It will never be a folder by itself."""
    (tmp_path / "place").touch()
    checkpointer = Checkpointer(tmp_path / "place")
    with pytest.raises(SpecError, match=r"No checkpoint can be written to .*place. .*File exists"):
        checkpointer.restore()


def test_what_can_not_be_read_is_not_begun_beside(tmp_path, checkpointer, values, monkeypatch):
    """The storage answers nothing: a start that found no checkpoint would replace those that are there."""
    for step in (1, 2):
        save(checkpointer, values, step)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "get", lambda self, key: refusing(errno.EIO)())
        again = Checkpointer(tmp_path)
        again.register("values", Values())
        with pytest.raises(CheckpointUnreadable, match=r"No checkpoint in .* can be read. .*Input/output error"):
            again.restore()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files


def test_a_folder_that_can_not_be_listed_is_not_empty(tmp_path, checkpointer, values, monkeypatch):
    """No permission, a stale network mount: told, not taken for a new run's."""
    save(checkpointer, values, 1)
    monkeypatch.setattr(os, "scandir", refusing(errno.ESTALE))
    with pytest.raises(CheckpointUnreadable, match="does not tell what it holds"):
        Checkpointer(tmp_path).latest()


def test_one_unreadable_checkpoint_is_passed_over(tmp_path, checkpointer, values, monkeypatch):
    """A bad sector under the newest: the one before is whole, and the run goes on from it."""
    for step in (1, 2):
        save(checkpointer, values, step)
    original = LocalStorage.get

    def get(self, key):
        if key == manifest_key(2):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(self, key)

    monkeypatch.setattr(LocalStorage, "get", get)
    rejected = []
    found = newest(LocalStorage(tmp_path), lambda manifest: None, lambda step, err: rejected.append((step, str(err))))
    assert found[0].step == 1
    assert [step for step, _ in rejected] == [2]
    assert "Input/output error" in rejected[0][1]


def test_committed_events_tell_what_was_committed(tmp_path, checkpointer, values, monkeypatch):
    """A save that failed has none."""
    save(checkpointer, values, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refusing(errno.EDQUOT))
        save(checkpointer, values, 2)
    save(checkpointer, values, 3)
    committed = [
        event.step for event in read_events(LocalStorage(tmp_path), 0) if isinstance(event, CheckpointCommitted)
    ]
    assert committed == [1, 3]
