"""Killed at any file-system call of a save, the checkpoints before it are whole, and the next start works."""

import os

import pytest
import torch

from spotproof.checkpoint import Checkpointer, newest_verified
from spotproof.storage import LocalStorage
from spotproof.testing import kill_at_every_call


class Values:
    """Something with state; differs from step to step except for a part that stays."""

    def __init__(self, step=0):
        self.state = {"moving": torch.full((64,), float(step)), "frozen": torch.ones(32), "step": step}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def in_child(action):
    """Run *action* in a process of its own; return its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def save_steps(folder, steps):
    """Save *steps* one after another, waiting for each."""
    checkpointer = Checkpointer(folder)
    checkpointer.register("values", values := Values())
    checkpointer.restore()
    for step in steps:
        values.state = Values(step).state
        checkpointer.save(step, wait=True)


def save_up_to_30(checkpointer):
    """Save steps 10, 20 and 30; the last save drops the first, too."""
    checkpointer.register("values", values := Values())
    for step in range(checkpointer.restore() or 0, 30, 10):
        values.state = Values(step + 10).state
        checkpointer.save(step + 10)


def test_every_call_of_a_commit(tmp_path):
    """For each call: killed there, what was saved is found whole, and the next attempt goes on to the same end."""
    report = kill_at_every_call(save_up_to_30, tmp_path / "kills")

    assert report.final_step == 30
    calls = [kill.call for kill in report.kills]
    # The kills really went through whole commits: packs, state, manifest, each staged, durable, renamed; and drops.
    assert {call.split()[0] for call in calls} == {"open", "write", "fsync", "replace", "link", "mkdir", "unlink"}
    assert "unlink step-0000000010.json" in calls
    assert any(call.startswith("replace step-0000000030.json") for call in calls)
    assert {kill.found_step for kill in report.kills} == {None, 10, 20, 30}


def test_a_damaged_pack_on_disk_is_not_reused(tmp_path):
    """Content that is already stored but damaged is written again, not trusted because of its name."""
    save_steps(tmp_path, [10])
    (pack,) = (tmp_path / "packs").glob("*.safetensors")
    content = pack.read_bytes()
    pack.write_bytes(content[:-1] + b"\xff")

    def save_same_again():
        checkpointer = Checkpointer(tmp_path)
        checkpointer.register("values", Values(10))
        checkpointer.latest()
        checkpointer.save(10, wait=True)

    assert in_child(save_same_again) == 0
    (again,) = (tmp_path / "packs").glob("*.safetensors")
    assert again.read_bytes() == content
    assert newest_verified(LocalStorage(tmp_path)).step == 10


def test_a_full_disk_leaves_training_and_older_checkpoints_alone(tmp_path, monkeypatch, caplog):
    """A write that fails is warned of and recorded; the checkpoint before it stays, and a later save works."""
    checkpointer = Checkpointer(tmp_path)
    checkpointer.register("values", values := Values(10))
    checkpointer.save(10, wait=True)
    values.state = Values(20).state
    real = os.fsync

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    checkpointer.save(20, wait=True)
    monkeypatch.setattr(os, "fsync", real)

    assert newest_verified(LocalStorage(tmp_path)).step == 10
    assert "No space left on device" in caplog.text
    assert "Training goes on" in caplog.text
    values.state = Values(30).state
    checkpointer.save(30, wait=True)
    assert newest_verified(LocalStorage(tmp_path)).step == 30


def test_the_older_of_two_writers_stops(tmp_path):
    """When a newer attempt writes to the folder, the older one is told so and writes no more."""
    from spotproof import CheckpointConflict

    older = Checkpointer(tmp_path)
    older.register("values", Values(10))
    older.save(10, wait=True)
    newer = Checkpointer(tmp_path)
    newer.register("values", Values(0))
    assert newer.restore() == 10

    with pytest.raises(CheckpointConflict, match=r"Attempt 1 writes to .* too, so attempt 0 stops"):
        older.save(20, wait=True)
    assert newest_verified(LocalStorage(tmp_path)).step == 10


def test_nothing_is_dropped_that_the_mirror_still_lacks(tmp_path):
    """Where a sync agent shows itself by markers, a checkpoint stays until two newer ones are uploaded."""
    checkpointer = Checkpointer(tmp_path)
    checkpointer.register("values", values := Values(0))

    def save(step):
        values.state = Values(step).state
        checkpointer.save(step, wait=True)

    def uploaded():
        for path in [p for p in tmp_path.rglob("*") if p.is_file() and "sagemaker" not in p.name]:
            path.with_name(path.name + ".sagemaker-uploaded").touch()

    save(10)
    save(20)
    uploaded()
    save(30)
    save(40)
    save(50)
    steps = [entry.key for entry in LocalStorage(tmp_path).list("step-")]
    assert [int(key[5:15]) for key in steps] == [10, 20, 40, 50]

    uploaded()
    save(60)
    steps = [entry.key for entry in LocalStorage(tmp_path).list("step-")]
    assert [int(key[5:15]) for key in steps] == [40, 50, 60]
