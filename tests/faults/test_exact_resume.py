"""Killed anywhere by SIGKILL, a training ends as an undisturbed one: every step, metric and validation, bit for bit."""

import json

import pytest
import torch
from outcomes import Outcome, assert_same_outcome, resumed_steps

from spotproof.checkpoint import Checkpointer, newest_verified
from spotproof.storage import LocalStorage

EPOCH = 11  # optimizer steps

SCENARIOS = {
    "plain": {},
    "two_workers": {"workers": 2},
    "persistent_workers": {"workers": 2, "persistent": True},
    "weighted_sampler": {"sampler": "weighted"},
    "accumulation": {"accumulate": 4, "every": 1},
    "validation_within_epochs": {"val_check_interval": 3, "workers": 2},
    "onecycle": {"scheduler": "onecycle"},
    "plateau": {"scheduler": "plateau"},
    "epoch_scheduler": {"scheduler": "step"},
    "save_at_epoch_ends": {"every": EPOCH, "workers": 2},
    "save_at_epoch_ends_in_process": {"every": EPOCH},
    "max_steps": {"trainer": {"max_steps": 25}},
    "manual_optimization": {"manual": True, "every": 1},
    "reloaded_loaders": {"trainer": {"reload_dataloaders_every_n_epochs": 2}, "epochs": 4},
    "early_stopping": {"callbacks": ["early stopping"], "epochs": 5},
    "best_files_and_logs": {
        "callbacks": ["best and last", "learning rates"],
        "tensorboard": True,
        "scheduler": "onecycle",
    },
    "moving_average": {"callbacks": ["moving average"]},
    "two_loaders_cycled": {"combined": "max_size_cycle"},
    "two_loaders": {"combined": "max_size", "workers": 2},
    "clipped_bf16": {"trainer": {"gradient_clip_val": 0.1, "precision": "bf16-mixed"}},
    "validation_workers": {"val_workers": 2, "val_check_interval": 4},
    "limited_batches": {"trainer": {"limit_train_batches": 7}},
    "validation_every_second_epoch": {"trainer": {"check_val_every_n_epoch": 2}, "epochs": 4},
}
MID_EPOCH = [("on_train_batch_end", 7), ("training_step", 16), ("validation_step", EPOCH)]
EVERYWHERE = [
    ("training_step", 0),
    ("on_train_batch_start", 14),
    ("on_train_batch_end", 12),
    ("on_train_batch_end", 22),
    ("on_validation_end", EPOCH),
    ("on_train_epoch_end", EPOCH),
    ("on_train_epoch_start", EPOCH),
    ("on_train_end", 1),
]
ONE_KILL = list(SCENARIOS)[-9:]
CASES = [(name, kill) for name in SCENARIOS for kill in MID_EPOCH if name not in ONE_KILL or kill == MID_EPOCH[1]] + [
    (name, kill) for name in ("plain", "two_workers") for kill in EVERYWHERE
]


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Give the outcome of a scenario without a kill; trained once."""
    outcomes = {}

    def outcome(name):
        if name not in outcomes:
            folder = tmp_path_factory.mktemp(name)
            assert zygote.train(folder, SCENARIOS[name]) == 0, (folder / "log.txt").read_text()
            outcomes[name] = Outcome(folder)
        return outcomes[name]

    return outcome


def scaled(name, step):
    """Return the optimizer step that corresponds to *step* batches in a scenario."""
    accumulate = SCENARIOS[name].get("accumulate", 1)
    if SCENARIOS[name].get("manual"):
        return step // 2
    step = step * 3 // EPOCH if accumulate > 1 else step
    return min(step, 13) if name == "limited_batches" else step


def case_id(value):
    """Name a case after its scenario and its kill."""
    return value if isinstance(value, str) else "@".join(map(str, value))


@pytest.mark.parametrize(("name", "kill"), CASES, ids=case_id)
def test_one_kill_leaves_no_trace(zygote, undisturbed, tmp_path, name, kill):
    """One kill, one resume: the same outcome, from a checkpoint and not from the start."""
    base = undisturbed(name)
    point, step = kill[0], scaled(name, kill[1])

    assert zygote.train(tmp_path, SCENARIOS[name], kill={"point": point, "step": step}) == -9
    assert zygote.train(tmp_path, SCENARIOS[name]) == 0, (tmp_path / "log.txt").read_text()

    assert_same_outcome(base, Outcome(tmp_path))
    every = SCENARIOS[name].get("every", 3)
    (resumed,) = resumed_steps(tmp_path)
    assert resumed >= step - every


def test_three_kills_twice_without_a_new_checkpoint(zygote, undisturbed, tmp_path):
    """Killed three times, once before any new checkpoint, the outcome is the same."""
    for step in (8, 8, 20):
        kill = {"point": "training_step", "step": step}
        assert zygote.train(tmp_path, SCENARIOS["two_workers"], kill=kill) == -9
    assert zygote.train(tmp_path, SCENARIOS["two_workers"]) == 0

    assert_same_outcome(undisturbed("two_workers"), Outcome(tmp_path))
    assert len(resumed_steps(tmp_path)) == 3


def test_killed_while_a_checkpoint_is_written(zygote, undisturbed, tmp_path):
    """Saving every step, so that each kill falls into a write, the outcome is the same."""
    scenario = {**SCENARIOS["plain"], "every": 1}
    for step in (5, 12, 13, 27):
        kill = {"point": "on_train_batch_end", "step": step}
        assert zygote.train(tmp_path, scenario, kill=kill, settle=False) == -9
    assert zygote.train(tmp_path, scenario) == 0

    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))


def test_killed_during_the_resume(zygote, undisturbed, tmp_path):
    """A kill while a checkpoint is being loaded changes nothing."""
    assert zygote.train(tmp_path, SCENARIOS["plain"], kill={"point": "training_step", "step": 9}) == -9
    assert zygote.train(tmp_path, SCENARIOS["plain"], kill={"point": "on_load_checkpoint", "step": 0}) == -9
    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0

    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))


def test_the_callback_changes_no_numbers(zygote, undisturbed, tmp_path):
    """With and without the callback a training ends the same: nothing is re-seeded or reordered."""
    for name in ("plain", "two_workers"):
        folder = tmp_path / name
        assert zygote.train(folder, SCENARIOS[name], mutate="no_callback") == 0, (folder / "log.txt").read_text()

        assert_same_outcome(undisturbed(name), Outcome(folder))


@pytest.mark.parametrize("mutate", ["order", "rng", "metrics", "attributes"])
def test_the_yardstick_bites(zygote, undisturbed, tmp_path, mutate):
    """A resume that forgets the data position, the generators or the epoch's metrics is found out."""
    base = undisturbed("plain")
    assert zygote.train(tmp_path, SCENARIOS["plain"], kill={"point": "training_step", "step": 8}) == -9
    assert zygote.train(tmp_path, SCENARIOS["plain"], mutate=mutate) == 0

    with pytest.raises(AssertionError):
        assert_same_outcome(base, Outcome(tmp_path))


def test_a_finished_run_given_more_epochs_equals_one_long_run(zygote, undisturbed, tmp_path):
    """Two epochs and then one more end as three in one go."""
    assert zygote.train(tmp_path, {**SCENARIOS["plain"], "epochs": 2}) == 0
    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0

    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))


def test_a_finished_run_is_not_trained_again(zygote, undisturbed, tmp_path):
    """Killed after the last step, the next attempt trains nothing and has the final weights."""
    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0
    before = (tmp_path / "trace.jsonl").read_text()

    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0

    assert (tmp_path / "trace.jsonl").read_text() == before


def test_sigterm_saves_the_last_step_and_leaves(zygote, undisturbed, tmp_path):
    """After SIGTERM the process ends with 143, and the next attempt goes on from the very step."""
    kill = {"point": "on_train_batch_end", "step": 8, "signal": 15}
    assert zygote.train(tmp_path, SCENARIOS["two_workers"], kill=kill) == 143, (tmp_path / "log.txt").read_text()
    assert zygote.train(tmp_path, SCENARIOS["two_workers"]) == 0

    assert resumed_steps(tmp_path) == [8]
    assert_same_outcome(undisturbed("two_workers"), Outcome(tmp_path))


def test_a_damaged_newest_checkpoint_is_passed_over(zygote, undisturbed, tmp_path):
    """Started on a folder whose newest checkpoint is cut short, a run says so and resumes from the one before."""
    assert zygote.train(tmp_path, SCENARIOS["plain"], kill={"point": "training_step", "step": 13}) == -9
    storage = LocalStorage(tmp_path / "checkpoints")
    newest = storage.list("step-")[-1].key
    whole = storage.root / newest
    whole.write_bytes(whole.read_bytes()[:-40])

    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0

    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))
    assert "passed over for the next older one" in (tmp_path / "log.txt").read_text()
    assert f"{newest} is not a whole manifest" in (tmp_path / "log.txt").read_text()


def test_data_without_a_position_is_said_and_still_resumed(zygote, tmp_path):
    """An iterable dataset without state: a warning that names it and the remedy, and the run goes on to its end."""
    scenario = {"iterable": True}
    assert zygote.train(tmp_path, scenario, kill={"point": "training_step", "step": 16}) == -9
    assert zygote.train(tmp_path, scenario) == 0, (tmp_path / "log.txt").read_text()

    log = (tmp_path / "log.txt").read_text()
    assert "position in the training data (Stream) can't be saved" in log
    assert "state_dict and load_state_dict" in log
    assert resumed_steps(tmp_path) == [15]


def test_a_plain_lightning_checkpoint_still_resumes(zygote, tmp_path):
    """The user's own ModelCheckpoint file, given as ckpt_path, goes on at its place in the data."""
    scenario = {"callbacks": ["every fifth step"]}
    base, other = tmp_path / "base", tmp_path / "other"
    assert zygote.train(base, scenario, kill={"point": "training_step", "step": 8}) == -9
    seen = [json.loads(line) for line in (base / "trace.jsonl").read_text().splitlines()]
    other.mkdir()
    (base / "best").rename(other / "best")

    assert zygote.train(other, scenario, mutate="lightning_ckpt") == 0, (other / "log.txt").read_text()

    goes_on = [json.loads(line) for line in (other / "trace.jsonl").read_text().splitlines()]
    ids = {(entry[1], entry[2]): entry[3] for entry in seen if entry[0] == "batch"}
    assert goes_on[0][:3] == ["batch", 0, 5]
    assert goes_on[0][3] == ids[0, 5]


def test_starting_over_in_a_used_folder_is_refused(zygote, tmp_path):
    """fit() without ckpt_path on a folder with checkpoints is an error, not an overwriting."""
    assert zygote.train(tmp_path, SCENARIOS["plain"], kill={"point": "training_step", "step": 8}) == -9

    assert zygote.train(tmp_path, SCENARIOS["plain"], mutate="no_ckpt_path") == 1
    assert "Pass ckpt_path=spot.latest()" in (tmp_path / "log.txt").read_text()


def test_a_state_that_turns_unsafe_late_does_not_end_the_training(zygote, tmp_path):
    """After some good saves training goes on, with a warning, and the newest good checkpoint stays."""
    assert zygote.train(tmp_path, {"unsafe_from": 20}) == 0, (tmp_path / "log.txt").read_text()

    assert "Step 21 is not saved. The state holds a __main__.Opaque" in (tmp_path / "log.txt").read_text()
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")).step == 18


def test_checkpoints_of_another_program_are_not_taken(zygote, tmp_path):
    """A folder that a plain loop wrote to is refused by name."""
    other = Checkpointer(tmp_path / "checkpoints")
    other.register("model", torch.nn.Linear(1, 1))
    other.save(5, wait=True)

    assert zygote.train(tmp_path, {}) == 1
    assert "holds no Lightning training, only model" in (tmp_path / "log.txt").read_text()


def test_a_state_that_could_not_be_read_back_is_refused_at_once(zygote, tmp_path):
    """A LightningModule that saves an object of its own class is refused before the first step, by type and place."""
    assert zygote.train(tmp_path, {"unsafe": True}) == 1
    log = (tmp_path / "log.txt").read_text()
    assert "UnsafeState" in log
    assert "Opaque" in log
    assert "lightning/mine" in log
    assert not (tmp_path / "trace.jsonl").exists() or '"batch"' not in (tmp_path / "trace.jsonl").read_text()
