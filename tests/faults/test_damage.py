"""Whatever happens to a checkpoint's files, what is restored is what was saved, from the newest whole one."""

import json
import os
import shutil

import pytest
import torch
from outcomes import Outcome, assert_same_outcome

from spotproof.checkpoint import Checkpointer, newest_verified, read_manifest, verify
from spotproof.checkpoint.journal import read_events
from spotproof.checkpoint.manifest import manifest_key
from spotproof.errors import CheckpointDamaged
from spotproof.events import CheckpointRejected, Resumed
from spotproof.storage import LocalStorage

KINDS = ("manifest", "pack", "state")


class Values:
    """Small state of every kind: several dtypes, tied and empty tensors, plain values."""

    def __init__(self, step=0, seed=0):
        moving = torch.full((5,), float(step + 100 * seed))
        self.state = {
            "moving": moving,
            "tied": moving,
            "counts": torch.arange(3) + step,
            "halves": torch.full((2,), step, dtype=torch.bfloat16),
            "none": torch.zeros(0),
            "step": step,
            "name": f"run {seed} at {step}",
        }

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def write_run(folder, steps=(10, 20, 30), seed=0):
    """Save *steps*, all kept."""
    checkpointer = Checkpointer(folder, keep=9)
    checkpointer.register("values", values := Values(seed=seed))
    for step in steps:
        values.state = Values(step, seed).state
        checkpointer.save(step, wait=True)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Another run, with the same steps."""
    folder = tmp_path_factory.mktemp("foreign")
    write_run(folder, seed=1)
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "run")
    return tmp_path / "run"


def key_of(folder, kind, step=30):
    """Return the key of the file of that *kind* which the checkpoint of *step* has."""
    manifest = read_manifest(LocalStorage(folder), manifest_key(step))
    (pack,) = manifest.ranks[0].packs
    return {"manifest": manifest.key, "pack": pack.key, "state": manifest.ranks[0].state.key}[kind]


def restored(folder):
    """Return the step that a new process would resume from, having checked that it gets what was saved there."""
    checkpointer = Checkpointer(folder)
    checkpointer.register("values", values := Values())
    step = checkpointer.restore()
    if step is not None:
        wanted = Values(step).state
        assert values.state.keys() == wanted.keys()
        for name, value in wanted.items():
            same = torch.equal(value, values.state[name]) if isinstance(value, torch.Tensor) else True
            assert same, name
            assert isinstance(value, torch.Tensor) or value == values.state[name], name
        assert values.state["moving"].dtype == torch.float32
        assert values.state["halves"].dtype == torch.bfloat16
    return step, {event.step: event.reason for event in events(folder, CheckpointRejected, checkpointer.attempt)}


def events(folder, kind, attempt):
    return [event for event in read_events(LocalStorage(folder), attempt) if isinstance(event, kind)]


def check_passed_over(folder, key, is_told=True):
    """The checkpoint of step 30 is reported by the name of its damaged file, and that of step 20 restored."""
    step, rejected = restored(folder)
    assert step == 20
    assert list(rejected) == ([30] if is_told else [])
    assert not is_told or key in rejected[30], (key, rejected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_of_every_byte(folder, kind):
    """It is found and the file named, or nothing that is read has changed (a letter of an escape in another case)."""
    key = key_of(folder, kind)
    storage, path = LocalStorage(folder), folder / key
    content = path.read_bytes()
    manifest = read_manifest(storage, manifest_key(30))
    unfound = 0
    for index in range(len(content)):
        for bit in {index % 8, (3 * index + 5) % 8}:
            altered = bytearray(content)
            altered[index] ^= 1 << bit
            path.write_bytes(altered)
            reason = damage_of(storage)
            if reason is None:
                assert kind == "manifest", (index, bit)
                assert read_manifest(storage, manifest.key) == manifest, (index, bit)
                unfound += 1
            else:
                assert key in reason
    assert unfound <= 0.001 * len(content)


def damage_of(storage):
    """Return what is wrong with the checkpoint of step 30, if anything."""
    try:
        verify(storage, read_manifest(storage, manifest_key(30)))
    except CheckpointDamaged as err:
        return str(err)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_passed_over_by_restore(folder, kind):
    """In the first, a middle and the last byte, through the whole way of a resume."""
    key = key_of(folder, kind)
    content = (folder / key).read_bytes()
    for index in (0, 7, 8, len(content) // 2, len(content) - 1):
        altered = bytearray(content)
        altered[index] ^= 16
        (folder / key).write_bytes(altered)
        check_passed_over(folder, key)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation(folder, kind):
    """At each length from nothing to all but one byte; as a half-synced file may be, also padded with zeros."""
    key = key_of(folder, kind)
    storage, path = LocalStorage(folder), folder / key
    content = path.read_bytes()
    for length in range(len(content)):
        for rest in (b"", bytes(len(content) - length))[: 1 + (length % 5 == 0)]:
            if content[:length] + rest == content:
                continue  # it ends with zeros
            path.write_bytes(content[:length] + rest)
            assert key in (damage_of(storage) or ""), (length, rest[:1])


def remove(path, folder, foreign, kind):
    path.unlink()


def empty(path, folder, foreign, kind):
    path.write_bytes(b"")


def swap(path, folder, foreign, kind):
    path.write_bytes((folder / key_of(folder, kind, step=20)).read_bytes())


def swap_with_a_foreign(path, folder, foreign, kind):
    """The same step's file of another run, whose other files are not there."""
    path.write_bytes((foreign / key_of(foreign, kind)).read_bytes())


def lengthen(path, folder, foreign, kind):
    with open(path, "ab") as file:
        file.write(b"\0")


def double(path, folder, foreign, kind):
    path.write_bytes(path.read_bytes() * 2)


def become_huge(path, folder, foreign, kind):
    """A hole of 1 TB, which must not be read into memory."""
    with open(path, "r+b") as file:
        file.truncate(2**40)


def become_a_folder(path, folder, foreign, kind):
    path.unlink()
    path.mkdir()


def become_a_full_folder(path, folder, foreign, kind):
    become_a_folder(path, folder, foreign, kind)
    (path / "file").write_bytes(b"x")


def become_a_dead_link(path, folder, foreign, kind):
    path.unlink()
    path.symlink_to("nowhere")


def become_a_link_to_itself(path, folder, foreign, kind):
    path.unlink()
    path.symlink_to(path.name)


def become_a_pipe(path, folder, foreign, kind):
    """Reading it would hang."""
    path.unlink()
    os.mkfifo(path)


STATES = [remove, empty, swap, swap_with_a_foreign, lengthen, double, become_huge, become_a_folder]
STATES += [become_a_full_folder, become_a_dead_link, become_a_link_to_itself, become_a_pipe]
GONE = (remove, become_a_folder, become_a_full_folder, become_a_dead_link, become_a_link_to_itself, become_a_pipe)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", STATES, ids=lambda damage: damage.__name__)
def test_every_state_of_every_file(folder, foreign, damage, kind):
    """It is reported by name and the next older checkpoint restored; the run goes on from there and saves again."""
    key = key_of(folder, kind)
    other = key_of(foreign, "state") if (damage, kind) == (swap_with_a_foreign, "manifest") else key
    damage(folder / key, folder, foreign, kind)

    # Without its manifest there simply is no such checkpoint.
    is_told = not (kind == "manifest" and damage in GONE)
    check_passed_over(folder, other, is_told)

    checkpointer = Checkpointer(folder)
    checkpointer.register("values", values := Values())
    assert checkpointer.restore() == 20
    values.state = Values(25).state
    checkpointer.save(25, wait=True)
    assert restored(folder)[0] == 25


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_folder_that_arrives_in_any_order(pristine, tmp_path, missing):
    """With any files still under way, nothing is restored but what is there as a whole."""
    from itertools import combinations

    names = sorted(str(path.relative_to(pristine)) for path in pristine.rglob("*") if path.is_file())
    needs = {step: {key_of(pristine, kind, step) for kind in KINDS} for step in (10, 20, 30)}
    for lacking in combinations(names, missing):
        whole = [step for step, files in needs.items() if not files & set(lacking)]
        folder = tmp_path / "_".join(str(names.index(name)) for name in lacking)
        (folder / "packs").mkdir(parents=True)
        for name in names:
            if name not in lacking and not name.startswith("events"):
                os.link(pristine / name, folder / name)
        newest = newest_verified(LocalStorage(folder))
        assert (newest.step if newest else None) == max(whole, default=None), lacking


def test_all_damaged_is_a_new_start(folder):
    """There is nothing left: said for each, and the training begins anew."""
    for step in (10, 20, 30):
        empty(folder / key_of(folder, "pack", step), folder, None, "pack")
    step, rejected = restored(folder)
    assert step is None
    assert sorted(rejected) == [10, 20, 30]


def test_a_training_with_two_damaged_checkpoints(zygote, tmp_path):
    """Lightning resumes from the third newest, in the same start, and ends as if nothing had happened."""
    scenario, spot = {"every": 3}, {"keep": 4}
    base, killed = tmp_path / "base", tmp_path / "killed"
    assert zygote.train(base, scenario) == 0
    assert zygote.train(killed, scenario, spot=spot, kill={"point": "training_step", "step": 20}) == -9
    checkpoints = killed / "checkpoints"
    storage = LocalStorage(checkpoints)
    newest = newest_verified(storage)
    assert newest.step == 18
    lengthen(checkpoints / newest.key, None, None, "manifest")
    state = checkpoints / read_manifest(storage, manifest_key(15)).ranks[0].state.key
    content = json.loads(state.read_bytes())
    state.write_text(json.dumps(content)[: state.stat().st_size])
    for garbage in ("attempt-0000.jsonl", "attempt-0001.jsonl", "attempt-99999999999999999999.jsonl"):
        (checkpoints / "events" / garbage).write_bytes(b"\x00\xff garbage {" * 100)

    assert zygote.train(killed, scenario, spot=spot) == 0, (killed / "log.txt").read_text()

    assert_same_outcome(Outcome(base), Outcome(killed))
    attempt = 10**20
    assert [event.step for event in events(checkpoints, Resumed, attempt)] == [12]
    rejected = {event.step: event.reason for event in events(checkpoints, CheckpointRejected, attempt)}
    assert rejected.keys() == {15, 18}
    assert newest.key in rejected[18]
    assert state.name in rejected[15]
    assert (killed / "log.txt").read_text().count("is passed over for the next older one") == 2
