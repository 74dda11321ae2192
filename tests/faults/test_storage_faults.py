"""The disk fills, breaks, slows down or goes away under a training: it goes on, says so once, and ends the same."""

import os

import pytest
from faulty_machine import put_back
from outcomes import Outcome, assert_same_outcome

from spotproof.checkpoint import newest_verified
from spotproof.checkpoint.journal import read_events
from spotproof.events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    Resumed,
    SaveFailed,
    SavePostponed,
    Warned,
)
from spotproof.storage import LocalStorage

SCENARIO = {"every": 3}  # 33 steps in 3 epochs
SETTLED = {"kind": None, "first": 8, "last": 20}
LAST_GOOD = 6
REFUSALS = {
    "full": "No space left on device",
    "no space for names": "No space left on device",
    "broken": "Input/output error",
    "read-only": "Read-only file system",
    "mounted read-only": "Read-only file system",
    "file in the way": "File exists",
}
REMOVED = "The newest checkpoint, of step 6, was removed from"
FAILED, AGAIN, LOST = "could not be written to", "can be written to again", "could not be saved to"


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Give the outcome on a machine without faults."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert zygote.train(folder, SCENARIO) == 0, log(folder)
    assert FAILED not in log(folder)
    return Outcome(folder)


def events(folder, kind, attempt=0):
    """Return what an attempt told."""
    return [event for event in read_events(LocalStorage(folder / "checkpoints"), attempt) if isinstance(event, kind)]


def log(folder):
    return (folder / "log.txt").read_text()


def train_with_fault(zygote, folder, kind, **options):
    """Train with the fault of *kind* while steps 8 to 20 are computed."""
    code = zygote.train(folder, SCENARIO, fault={**SETTLED, "kind": kind}, **options)
    if "unshare" in log(folder):
        pytest.skip("this kernel lets no process have mounts of its own")
    return code


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_disk_that_refuses(zygote, undisturbed, tmp_path, kind):
    """Saves fail for a while: one warning and an event say it, older checkpoints stay, then it saves again."""
    assert train_with_fault(zygote, tmp_path, kind) == 0, log(tmp_path)

    assert_same_outcome(undisturbed, Outcome(tmp_path))
    said = log(tmp_path)
    assert (said.count(FAILED), said.count(AGAIN), said.count(LOST)) == (1, 1, 0), said
    assert REFUSALS[kind] in next(line for line in said.splitlines() if FAILED in line)
    failed = events(tmp_path, SaveFailed)
    assert failed
    assert all(8 <= event.step <= 20 for event in failed)  # it ends after what the safe point of step 20 may try
    committed = [event.step for event in events(tmp_path, CheckpointCommitted)]
    assert [step for step in committed if step < 20] == [0, 3, 6]
    assert min(step for step in committed if step >= 20) <= 23
    assert committed[-1] == 33
    assert [event.outcome for event in events(tmp_path, AttemptEnded)] == ["finished"]
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")).step == 33
    assert list((tmp_path / "checkpoints").rglob("*.sagemaker-ignore")) == []


@pytest.mark.parametrize("kind", REFUSALS)
def test_killed_while_the_disk_refuses(zygote, undisturbed, tmp_path, kind):
    """The last good checkpoint is still whole, and what resumes from it ends the same."""
    assert train_with_fault(zygote, tmp_path, kind, kill={"point": "training_step", "step": 15}) == -9, log(tmp_path)
    assert FAILED in log(tmp_path)
    if kind == "file in the way":
        assert zygote.train(tmp_path, SCENARIO) == 1  # what is there can't be a folder of checkpoints
        assert f"No checkpoint can be written to {tmp_path}/checkpoints" in log(tmp_path)
        put_back(tmp_path)
    rejected = []
    newest = newest_verified(LocalStorage(tmp_path / "checkpoints"), lambda step, err: rejected.append(step))
    assert newest.step == LAST_GOOD
    assert zygote.train(tmp_path, SCENARIO) == 0, log(tmp_path)

    assert_same_outcome(undisturbed, Outcome(tmp_path))
    assert [event.step for event in events(tmp_path, Resumed, newest.attempt + 1)] == [LAST_GOOD]


def test_a_folder_that_is_deleted(zygote, undisturbed, tmp_path):
    """All checkpoints are gone: it is said once, everything is saved anew, and a kill resumes from that."""
    assert train_with_fault(zygote, tmp_path, "deleted", kill={"point": "training_step", "step": 15}) == -9
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")).step == 15
    assert log(tmp_path).count(REMOVED) == 1
    assert [event.message[: len(REMOVED)] for event in events(tmp_path, Warned)] == [REMOVED]
    assert isinstance(read_events(LocalStorage(tmp_path / "checkpoints"), 0)[0], AttemptStarted)
    assert zygote.train(tmp_path, SCENARIO) == 0, log(tmp_path)

    assert_same_outcome(undisturbed, Outcome(tmp_path))
    assert log(tmp_path).count(REMOVED) == 1
    assert [event.step for event in events(tmp_path, Resumed, 1)] == [15]


def test_deleted_and_killed_before_the_next_save(zygote, undisturbed, tmp_path):
    """Then there is nothing to resume from, and the training begins anew: later, but the same."""
    assert train_with_fault(zygote, tmp_path, "deleted", kill={"point": "training_step", "step": 8}) == -9
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")) is None
    assert zygote.train(tmp_path, SCENARIO) == 0, log(tmp_path)
    assert_same_outcome(undisturbed, Outcome(tmp_path))


def test_a_slow_disk(zygote, undisturbed, tmp_path):
    """Saves that come due while one is being written wait; nothing fails, training does not wait for the disk."""
    assert train_with_fault(zygote, tmp_path, "slow", settle=False) == 0, log(tmp_path)

    assert_same_outcome(undisturbed, Outcome(tmp_path))
    assert events(tmp_path, SavePostponed)
    assert events(tmp_path, SaveFailed) == []
    assert events(tmp_path, CheckpointCommitted)[-1].step == 33


@pytest.mark.parametrize("kind", ["clock", "no TMPDIR"])
def test_what_checkpoints_do_not_depend_on(zygote, undisturbed, tmp_path, kind):
    """A wall clock that jumps and a missing TMPDIR are not even noticed, by a killed training's resume neither."""
    assert train_with_fault(zygote, tmp_path, kind, kill={"point": "training_step", "step": 22}) == -9, log(tmp_path)
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")).step == 21
    assert train_with_fault(zygote, tmp_path, kind) == 0, log(tmp_path)

    assert_same_outcome(undisturbed, Outcome(tmp_path))
    assert (events(tmp_path, SaveFailed), events(tmp_path, Warned)) == ([], [])
    committed = events(tmp_path, CheckpointCommitted, 0)
    assert [event.step for event in committed] == [0, 3, 6, 9, 12, 15, 18, 21]
    if kind == "clock":  # it did jump
        assert committed[3].at < committed[2].at


def test_tmpdir_on_another_file_system(zygote, undisturbed, tmp_path, monkeypatch):
    """Nothing is written to TMPDIR, so that no rename of ours crosses file systems."""
    elsewhere = next(place for place in ("/dev/shm", "/run") if os.stat(place).st_dev != tmp_path.stat().st_dev)
    tmpdir = f"{elsewhere}/spotproof-test-{os.getpid()}"
    os.mkdir(tmpdir)
    try:
        os.chmod(tmpdir, 0o555)
        assert zygote.train(tmp_path, SCENARIO, env={"TMPDIR": tmpdir}) == 0, log(tmp_path)
        assert os.listdir(tmpdir) == []
    finally:
        os.rmdir(tmpdir)
    assert_same_outcome(undisturbed, Outcome(tmp_path))


def test_a_start_on_a_read_only_folder(zygote, undisturbed, tmp_path):
    """A mistake, told before anything is trained; with the folder mended the run goes on where it was."""
    assert zygote.train(tmp_path, SCENARIO, kill={"point": "training_step", "step": 8}) == -9
    before = (tmp_path / "trace.jsonl").read_text()

    code = zygote.train(tmp_path, SCENARIO, fault={"kind": "mounted read-only"})
    if "unshare" in log(tmp_path):
        pytest.skip("this kernel lets no process have mounts of its own")

    assert code == 1
    assert f"SpecError: No checkpoint can be written to {tmp_path}/checkpoints. [Errno 30] Read-only" in log(tmp_path)
    assert (tmp_path / "trace.jsonl").read_text() == before
    assert zygote.train(tmp_path, SCENARIO) == 0, log(tmp_path)
    assert_same_outcome(undisturbed, Outcome(tmp_path))


def test_a_start_on_a_full_disk(zygote, undisturbed, tmp_path):
    """A disk may be freed: the training begins, and saves once it can."""
    assert zygote.train(tmp_path, SCENARIO, fault={"kind": "full", "last": 20}) == 0, log(tmp_path)

    assert_same_outcome(undisturbed, Outcome(tmp_path))
    assert (log(tmp_path).count(FAILED), log(tmp_path).count(AGAIN)) == (1, 1)
    started, *_ = read_events(LocalStorage(tmp_path / "checkpoints"), 0)
    assert isinstance(started, AttemptStarted)  # told when it could be
    assert events(tmp_path, SaveFailed)[0].step == 0
    assert events(tmp_path, CheckpointCommitted)[-1].step == 33


def test_a_disk_that_stays_full(zygote, undisturbed, tmp_path):
    """The training ends with its result, and says that there is no checkpoint of it."""
    fault = {"kind": "full", "first": 8}
    assert zygote.train(tmp_path, SCENARIO, fault=fault) == 0, log(tmp_path)

    assert_same_outcome(undisturbed, Outcome(tmp_path))
    assert (log(tmp_path).count(FAILED), log(tmp_path).count(LOST)) == (1, 1)
    assert "its last step, 33, could not be saved" in log(tmp_path)
    assert "The newest checkpoint is that of step 6." in log(tmp_path)
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")).step == LAST_GOOD
