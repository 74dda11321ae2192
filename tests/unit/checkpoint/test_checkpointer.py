"""The core without Lightning: register, save, restore, compare."""

import pytest
import torch
from torch import nn

from spotproof import ResumeMismatch, SpecError
from spotproof.checkpoint import Checkpointer, first_difference, newest_verified
from spotproof.checkpoint.journal import read_events
from spotproof.events import AttemptStarted, CheckpointCommitted, CheckpointDropped, Resumed
from spotproof.storage import LocalStorage


def training(folder):
    """Return a checkpointer with a model and an optimizer that have made one step."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    checkpointer = Checkpointer(folder)
    checkpointer.register("model", model)
    checkpointer.register("optimizer", optimizer)
    return checkpointer, model, optimizer


def test_save_and_restore_into_new_objects(tmp_path):
    """Weights and optimizer state are bit-identical."""
    checkpointer, model, optimizer = training(tmp_path)
    checkpointer.save(1, wait=True)

    other, fresh, fresh_optimizer = training(tmp_path)
    with torch.no_grad():
        fresh.weight.zero_()
    assert other.restore() == 1

    assert torch.equal(fresh.weight, model.weight)
    assert torch.equal(
        fresh_optimizer.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
    """The first attempt starts from the beginning."""
    checkpointer, *_ = training(tmp_path / "new")
    assert checkpointer.latest() is None
    assert checkpointer.restore() is None
    assert checkpointer.attempt == 0


def test_events_tell_the_story(tmp_path):
    """One file an attempt: started, committed, dropped; the next attempt resumed."""
    checkpointer, *_ = training(tmp_path)
    for step in (1, 2, 3):
        checkpointer.save(step, wait=True)
    second, *_ = training(tmp_path)
    second.restore()

    storage = LocalStorage(tmp_path)
    kinds = [type(event) for event in read_events(storage, 0)]
    assert kinds == [AttemptStarted, *[CheckpointCommitted] * 3, CheckpointDropped]
    assert [type(event) for event in read_events(storage, 1)] == [AttemptStarted, Resumed]
    assert read_events(storage, 0)[0].run_id == read_events(storage, 1)[0].run_id


def test_unchanged_packs_are_not_written_again(tmp_path):
    """The second save of an equal state writes no pack, only the small state."""
    checkpointer, *_ = training(tmp_path)
    checkpointer.save(1, wait=True)
    checkpointer.save(2, wait=True)
    first, second = (
        event for event in read_events(LocalStorage(tmp_path), 0) if isinstance(event, CheckpointCommitted)
    )
    assert first.written_bytes == first.total_bytes
    (packs,) = {rank.packs for step in (1, 2) for rank in manifest(LocalStorage(tmp_path), step).ranks}
    assert second.written_bytes == second.total_bytes - sum(pack.size_bytes for pack in packs)


def test_only_named_packs_stay(tmp_path):
    """Retention removes what no manifest names, also what a killed attempt left."""
    checkpointer, model, _ = training(tmp_path)
    (tmp_path / "packs").mkdir(parents=True)
    (tmp_path / "packs" / ("0" * 32 + ".safetensors")).write_bytes(b"left by a killed attempt")
    for step in range(1, 6):
        with torch.no_grad():
            model.weight += 1
        checkpointer.save(step, wait=True)
    storage = LocalStorage(tmp_path)
    named = {f.key for step in (4, 5) for f in manifest(storage, step).files}
    assert {entry.key for entry in storage.list("packs/")} == named


def manifest(storage, step):
    """Return the manifest of *step*."""
    from spotproof.checkpoint import read_manifest
    from spotproof.checkpoint.manifest import manifest_key

    return read_manifest(storage, manifest_key(step))


def test_a_save_that_comes_due_meanwhile_is_not_queued(tmp_path, monkeypatch):
    """While one save is under way the next is refused, and its state is not touched."""
    import threading

    checkpointer, *_ = training(tmp_path)
    may_go_on = threading.Event()
    real = LocalStorage.put

    def slow(self, key, chunks):
        may_go_on.wait(10)
        real(self, key, chunks)

    monkeypatch.setattr(LocalStorage, "put", slow)
    assert checkpointer.save(1)
    assert not checkpointer.save(2)
    may_go_on.set()
    checkpointer.close()
    assert newest_verified(LocalStorage(tmp_path)).step == 1


def test_equal_states_have_no_difference_and_others_name_the_first(tmp_path):
    """Two runs compare by content; a changed weight is named."""
    for name in ("a", "b"):
        checkpointer, *_ = training(tmp_path / name)
        checkpointer.save(1, wait=True)
    checkpointer, model, _ = training(tmp_path / "c")
    with torch.no_grad():
        model.bias[1] += 1e-7
    checkpointer.save(1, wait=True)
    a, b, c = (LocalStorage(tmp_path / name) for name in "abc")

    assert first_difference(newest_verified(a), a, newest_verified(b), b) is None
    difference = first_difference(newest_verified(a), a, newest_verified(c), c)
    assert difference.where == "model/bias"


def test_plain_values_are_compared_too(tmp_path):
    """A counter that differs is a difference."""

    class Counter:
        def __init__(self, value):
            self.value = value

        def state_dict(self):
            return {"loops": {"count": self.value}, "callbacks": {"path": f"/tmp/{self.value}"}}

        def load_state_dict(self, state):
            self.value = state["loops"]["count"]

    storages = []
    for value in (3, 3, 4):
        checkpointer = Checkpointer(tmp_path / str(len(storages)))
        checkpointer.register("counter", Counter(value))
        checkpointer.save(1, wait=True)
        storages.append(LocalStorage(tmp_path / str(len(storages))))
    a, b, c = storages
    assert first_difference(newest_verified(a), a, newest_verified(b), b) is None
    difference = first_difference(newest_verified(a), a, newest_verified(c), c)
    assert (difference.where, difference.detail) == ("counter/loops/count", "3 and 4")


def test_a_missing_state_is_named(tmp_path):
    """Registering more than the checkpoint holds is a mismatch, not a silent default."""
    checkpointer, *_ = training(tmp_path)
    checkpointer.save(1, wait=True)
    other, *_ = training(tmp_path)
    other.register("scheduler", nn.Linear(1, 1))
    with pytest.raises(ResumeMismatch, match="no state for scheduler"):
        other.restore()


def test_bad_arguments_are_refused(tmp_path):
    """keep below 2, and a name taken twice."""
    with pytest.raises(SpecError, match="keep=1 is too few"):
        Checkpointer(tmp_path, keep=1)
    checkpointer, *_ = training(tmp_path)
    with pytest.raises(SpecError, match="registered already"):
        checkpointer.register("model", nn.Linear(1, 1))


def test_making_room_for_a_large_state_does_not_stop_training(tmp_path):
    """A save that may be deferred makes the buffers in the background, asks to be repeated, and then only copies."""
    checkpointer = Checkpointer(tmp_path)
    model = nn.Linear(2**12, 2**11)
    checkpointer.register("model", model)

    assert not checkpointer.save(1, may_defer=True)
    checkpointer.wait()
    assert checkpointer.must_repeat
    assert checkpointer.latest() is None
    with torch.no_grad():
        model.weight += 1
    assert checkpointer.save(2, may_defer=True)
    checkpointer.close()

    assert not checkpointer.must_repeat
    manifest = checkpointer.latest()
    assert manifest.step == 2
    assert torch.equal(checkpointer.read(manifest)["model"]["weight"], model.weight)


def test_a_save_that_is_waited_for_is_never_deferred(tmp_path):
    """Also not while the buffers are being made."""
    checkpointer = Checkpointer(tmp_path)
    checkpointer.register("model", nn.Linear(2**12, 2**11))
    checkpointer.save(1, may_defer=True)
    assert checkpointer.save(1, may_defer=True, wait=True)
    assert checkpointer.latest().step == 1
