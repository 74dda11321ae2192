"""Content is stored once, wherever it turns up; packs verify themselves; a wrong guess is found."""

import json

import pytest
import torch
from safetensors.torch import load

from spotproof.checkpoint import Checkpointer, newest_verified, read_manifest, verify
from spotproof.checkpoint.fence import Fence
from spotproof.checkpoint.journal import read_events
from spotproof.checkpoint.manifest import manifest_key
from spotproof.checkpoint.pack import read_pack
from spotproof.checkpoint.packing import PACK_BYTES
from spotproof.errors import CheckpointDamaged
from spotproof.events import CheckpointCommitted, SavePostponed
from spotproof.storage import LocalStorage

BIG = 2**18  # floats: a mebibyte


class State:
    """Named tensors that a test changes."""

    def __init__(self, **tensors):
        self.tensors = tensors

    def state_dict(self):
        return self.tensors

    def load_state_dict(self, state):
        self.tensors = state


def saver(folder, state):
    """Return a function that saves the next step and gives its commit event."""
    checkpointer = Checkpointer(folder)
    checkpointer.register("s", state)

    def save(step):
        checkpointer.save(step, wait=True)
        events = read_events(checkpointer.storage, 0)
        return [event for event in events if isinstance(event, CheckpointCommitted)][-1]

    return save


def restored(folder):
    """Return the tensors of the newest checkpoint."""
    checkpointer = Checkpointer(folder)
    return checkpointer.read(checkpointer.latest())["s"]


def test_a_pack_is_a_safetensors_file(tmp_path):
    """The format's own library reads names, dtypes, shapes and values back."""
    tensors = {
        "bool": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).half(),
        "double": torch.randn(2, dtype=torch.float64),
        "scalar": torch.tensor(3),
        "transposed": torch.randn(4, 3).t(),
    }
    saver(tmp_path, State(none=torch.empty(0, 4), **tensors))(1)
    (path,) = tmp_path.glob("packs/*.safetensors")

    read = load(path.read_bytes())

    assert read.keys() == {f"s/{name}" for name in tensors}
    for name, tensor in tensors.items():
        assert torch.equal(read[f"s/{name}"], tensor)
        assert read[f"s/{name}"].dtype == tensor.dtype


def test_large_states_are_cut_into_packs(tmp_path):
    """A pack is closed once it has reached its size."""
    half = [torch.full((PACK_BYTES // 2,), value, dtype=torch.uint8) for value in range(3)]
    saver(tmp_path, State(a=half[0], b=half[1], c=half[2]))(1)
    (files,) = newest_verified(LocalStorage(tmp_path)).ranks
    assert [entry.pack for entry in files.tensors] == [0, 0, 1]


def test_neighbours_are_written_in_one_piece(tmp_path, monkeypatch):
    """A pack of a hundred small tensors takes two pieces: its header and their bytes."""
    pieces = []
    real = LocalStorage.put

    def put(self, key, chunks):
        chunks = list(chunks)
        pieces.append(len(chunks))
        real(self, key, chunks)

    monkeypatch.setattr(LocalStorage, "put", put)
    saver(tmp_path, State(**{f"t{index}": torch.randn(8) for index in range(100)}))(1)
    assert max(pieces) == 2


def test_equal_bytes_are_written_once_and_restored_apart(tmp_path):
    """Two tensors of the same content, of other shapes and dtypes even, share their bytes on disk and nothing else."""
    state = State(a=torch.zeros(BIG), b=torch.zeros(BIG // 2, 2), c=torch.zeros(BIG, dtype=torch.int32))
    event = saver(tmp_path, state)(1)
    assert event.written_bytes < 4 * BIG + 20_000

    found = restored(tmp_path)
    found["a"] += 1

    assert torch.equal(found["b"], state.tensors["b"])
    assert torch.equal(found["c"], state.tensors["c"])


def test_with_95_percent_frozen_only_the_rest_is_written(tmp_path):
    """From the second save on, at most 8 % of the bytes, whatever pack they were in at first."""
    frozen = {f"frozen{index}": torch.randn(BIG) for index in range(19)}
    state = State(moving=torch.randn(BIG), **frozen)
    save = saver(tmp_path, state)
    save(1)
    for step in (2, 3, 4, 5):
        state.tensors["moving"] += 1
        event = save(step)
        assert event.written_bytes <= 0.08 * event.total_bytes
        assert all(torch.equal(restored(tmp_path)[name], tensor) for name, tensor in state.tensors.items())


def test_a_checkpoint_never_takes_more_than_twice_its_size(tmp_path):
    """Tensors that come to rest one after another leave no trail of packs that are mostly dead."""
    num_tensors = 10
    state = State(**{f"t{index}": torch.randn(BIG) for index in range(num_tensors)})
    save = saver(tmp_path, state)
    for step in range(2 * num_tensors):
        for index in range(step % num_tensors, num_tensors):
            state.tensors[f"t{index}"] += 1
        save(step)
        total = sum(file.size_bytes for file in newest_verified(LocalStorage(tmp_path)).ranks[0].packs)
        assert total <= 2 * num_tensors * 4 * BIG + 50_000
    assert all(torch.equal(restored(tmp_path)[name], tensor) for name, tensor in state.tensors.items())


def test_a_change_that_nothing_counts_is_found(tmp_path):
    """A tensor taken to be frozen that changes uncounted makes the save be made again, whole."""
    state = State(big=torch.zeros(BIG), moving=torch.zeros(4))
    save = saver(tmp_path, state)
    for step in (1, 2, 3):
        state.tensors["moving"] += 1
        save(step)
    version = state.tensors["big"]._version
    state.tensors["big"].numpy()[7] = 1.0
    assert state.tensors["big"]._version == version

    save(4)

    assert restored(tmp_path)["big"][7] == 1.0
    assert any(isinstance(event, SavePostponed) for event in read_events(LocalStorage(tmp_path), 0))


def test_a_change_while_the_save_is_under_way_gives_no_mixture(tmp_path, monkeypatch):
    """The live tensor is read behind the training's back; if it changes then, the save is given up and made again."""
    state = State(big=torch.zeros(BIG), moving=torch.zeros(4))
    checkpointer = Checkpointer(tmp_path)
    checkpointer.register("s", state)
    for step in (1, 2, 3):
        state.tensors["moving"] += 1
        checkpointer.save(step, wait=True)
    refuse = Fence.refuse_if_superseded

    def change_first(self):
        refuse(self)
        state.tensors["big"] += 1

    monkeypatch.setattr(Fence, "refuse_if_superseded", change_first)
    checkpointer.save(4)
    checkpointer.wait()
    monkeypatch.undo()

    assert checkpointer.must_repeat
    assert newest_verified(LocalStorage(tmp_path)).step == 3
    checkpointer.save(5, wait=True)
    assert not checkpointer.must_repeat
    assert torch.equal(restored(tmp_path)["big"], torch.ones(BIG))


def test_packs_that_somebody_removed_are_written_again(tmp_path):
    """Nothing is named in a manifest that is not there."""
    state = State(big=torch.randn(BIG), moving=torch.zeros(4))
    save = saver(tmp_path, state)
    for step in (1, 2, 3):
        state.tensors["moving"] += 1
        save(step)
    for path in tmp_path.glob("packs/*"):
        path.unlink()

    state.tensors["moving"] += 1
    save(4)

    assert torch.equal(restored(tmp_path)["big"], state.tensors["big"])


def test_every_byte_of_a_pack_is_vouched_for(tmp_path):
    """A flipped bit anywhere, a cut or a longer file is found."""
    saver(tmp_path, State(a=torch.arange(3.0), b=torch.arange(5)))(1)
    storage = LocalStorage(tmp_path)
    (pack,) = newest_verified(storage).ranks[0].packs
    path = tmp_path / pack.key
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(CheckpointDamaged):
            read_pack(storage, pack)
    for damaged in (whole[:-1], whole + b"\0", b"", whole[:8]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointDamaged):
            read_pack(storage, pack)
    path.write_bytes(whole)
    read_pack(storage, pack)


def test_a_pack_of_other_tensors_is_not_taken(tmp_path):
    """A whole pack that lacks what the manifest says it holds is damage."""
    saver(tmp_path, State(a=torch.arange(3.0)))(1)
    storage = LocalStorage(tmp_path)
    manifest = storage.root / manifest_key(1)
    body = json.loads(manifest.read_bytes())
    body["ranks"][0]["tensors"][0][3] = "0" * 32
    del body["digest"]
    from spotproof.checkpoint.manifest import content_hash

    body["digest"] = content_hash(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    manifest.write_text(json.dumps(body))

    verify(storage, read_manifest(storage, manifest.name))
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.latest() is None


def test_a_resume_reads_each_pack_once(tmp_path, monkeypatch):
    """What latest() read to verify is what restore() takes."""
    saver(tmp_path, State(a=torch.randn(BIG)))(1)
    opened = []
    real = LocalStorage.open
    monkeypatch.setattr(LocalStorage, "open", lambda self, key: opened.append(key) or real(self, key))

    restored(tmp_path)

    assert len(opened) == 1
