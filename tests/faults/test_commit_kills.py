"""Killed at any file-system call of a save, the checkpoints before it are whole, and the next start works."""

import os
import signal

import pytest
import torch

from spotproof.checkpoint import Checkpointer, newest_verified
from spotproof.storage import LocalStorage

CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink")


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


def kill_at_call(number):
    """Make this process die by SIGKILL instead of its *number*-th file-system call, from 0; writes die half done."""
    left = number

    def guarded(name, original):
        def call(*args, **kwargs):
            nonlocal left
            if left == 0:
                if name == "write":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return original(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, guarded(name, getattr(os, name)))


def save_steps(folder, steps, kill=None):
    """Save *steps* one after another, waiting for each; die at file-system call *kill* of the last."""
    checkpointer = Checkpointer(folder)
    checkpointer.register("values", values := Values())
    checkpointer.restore()
    for step in steps:
        values.state = Values(step).state
        if kill is not None and step == steps[-1]:
            kill_at_call(kill)
        checkpointer.save(step, wait=True)


def test_every_call_of_a_commit(tmp_path):
    """For each call: killed there, step 30 or 40 is found whole, the next attempt restores it and saves again."""
    number = 0
    found = set()
    while True:
        folder = tmp_path / str(number)
        code = in_child(lambda: save_steps(folder, [10, 20, 30, 40], kill=number))  # noqa: B023
        if code == 0:
            break
        assert code == -9
        storage = LocalStorage(folder)
        newest = newest_verified(storage)
        assert newest is not None
        assert newest.step in (30, 40)
        found.add(newest.step)

        assert in_child(lambda: save_steps(folder, [50, 60])) == 0  # noqa: B023
        again = Checkpointer(folder)
        again.register("values", values := Values())
        assert again.restore() == 60
        assert torch.equal(values.state["moving"], torch.full((64,), 60.0))
        leftovers = [path.name for path in folder.rglob("*.sagemaker-ignore")]
        assert leftovers == []
        number += 1
    assert number > 15  # the kills really went through the whole commit
    assert found == {30, 40}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "swap", "empty"])
def test_damage_to_any_file_of_the_newest_is_found(tmp_path, damage):
    """Each file of the newest checkpoint, damaged in each way, makes the next older one the newest verified."""
    save_steps(tmp_path, [10, 20])
    storage = LocalStorage(tmp_path)
    newest = newest_verified(storage)
    older = {file.key for file in storage_manifest(storage, 10).files}
    for key in [newest.key, *(file.key for file in newest.files if file.key not in older)]:
        path = tmp_path / key
        content = path.read_bytes()
        if damage == "flip":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        elif damage == "cut":
            path.write_bytes(content[:-1])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "swap":
            path.write_bytes((tmp_path / storage_manifest(storage, 10).key).read_bytes())
        else:
            path.unlink()
        rejected = []
        chosen = newest_verified(storage, lambda step, err: rejected.append((step, str(err))))  # noqa: B023
        path.write_bytes(content)

        assert chosen.step == 10, key
        if damage == "remove" and key == newest.key:
            assert rejected == []  # then there simply is no such checkpoint
        else:
            assert [step for step, _ in rejected] == [20]
            assert key in rejected[0][1]


def storage_manifest(storage, step):
    """Return the manifest of *step*."""
    from spotproof.checkpoint import read_manifest
    from spotproof.checkpoint.manifest import manifest_key

    return read_manifest(storage, manifest_key(step))


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
    assert pack.read_bytes() == content
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
