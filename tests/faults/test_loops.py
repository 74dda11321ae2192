"""Whatever Lightning's loops, callbacks and loggers are asked to do, a training killed again and again ends as an
undisturbed one, and leaves the same files."""

import loop_corners  # noqa: F401 registers its kinds
import loop_kinds  # noqa: F401 the same
import loop_objects  # noqa: F401 the same
import pytest
from loop_net import KINDS, NUM_BATCHES
from outcomes import Outcome, assert_same_outcome, resumed_steps

LAST = NUM_BATCHES - 1
KILLS = [
    ("batch_end", 0),
    ("batch_start", 4),
    ("batch_end", 7),
    ("validation", LAST),
    ("load", 0),
    ("batch_end", LAST),
    ("epoch_end", LAST),
    ("batch_start", 12),
    ("epoch_start", 2 * LAST),
    ("batch_end", 26),
    ("train_end", 0),
]
"""In the order of the training: the first batch, the batch after a save and one in between, validation, during the
resume, the last batch of an epoch, the end of an epoch, the step of a save, the beginning of an epoch, and the end."""
UNVALIDATED = {"corners", "corners_in_workers", "reweighted"}
"""Kinds that would run to their end where a kill waits for the validation."""
FEW_KILLS = [("batch_end", 8), ("load", 0), ("batch_start", 18), ("batch_end", 24)]
"""In the first epoch, during the resume, in the second, and in the third."""
EVERY_SECOND = [pytest.param(name, marks=() if number % 2 else pytest.mark.slow) for number, name in enumerate(KINDS)]
"""The others are for the long run."""


def compare_with_undisturbed(zygote, folder, name, kills):
    """Train a kind undisturbed, and again with a kill at each of *kills*, one after another; compare what is left."""
    scenario = {"loop": name}
    base, killed = folder / "base", folder / "killed"
    assert zygote.train(base, scenario) == 0, (base / "log.txt").read_text()

    num_kills = 0
    for point, at in kills:
        code = zygote.train(killed, scenario, kill={"point": point, "step": at})
        assert code in (-9, 0), (killed / "log.txt").read_text()
        num_kills += code == -9
    assert num_kills >= len(kills) - 3  # some kinds end early, or do not validate there
    assert zygote.train(killed, scenario) == 0, (killed / "log.txt").read_text()
    assert resumed_steps(killed)[-1] > 0

    assert_same_outcome(Outcome(base), Outcome(killed))


@pytest.mark.parametrize("name", EVERY_SECOND)
def test_kills_leave_no_trace(zygote, tmp_path, name):
    """Killed in each epoch and during a resume, a training of any kind ends as the undisturbed one."""
    compare_with_undisturbed(zygote, tmp_path, name, FEW_KILLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_kills_all_along_leave_no_trace(zygote, tmp_path, name):
    """Killed at each kind of instant, one after another, a training of any kind ends as the undisturbed one."""
    kills = [kill for kill in KILLS if kill[0] != "validation" or name not in UNVALIDATED]
    compare_with_undisturbed(zygote, tmp_path, name, kills)


@pytest.mark.parametrize("name", ["rows", "best_and_last_files", "many_callbacks"])
def test_the_callback_changes_nothing(zygote, tmp_path, name):
    """With and without SpotCheckpoint a training ends the same and leaves the same files."""
    assert zygote.train(tmp_path / "with", {"loop": name}) == 0
    assert zygote.train(tmp_path / "without", {"loop": name}, mutate="no_callback") == 0

    outcomes = Outcome(tmp_path / "with"), Outcome(tmp_path / "without")
    for outcome in outcomes:  # the position in the data is in one of them only
        outcome.final["files"] = list(outcome.final["files"])
    assert_same_outcome(*outcomes)


def test_an_attempt_that_saved_nothing_leaves_no_trace(zygote, tmp_path):
    """Killed before its first save, a training begins anew with the loggers' versions, and the files beside them."""
    scenario = {"loop": "default_files_and_logs"}
    assert zygote.train(tmp_path / "base", scenario) == 0
    assert zygote.train(tmp_path / "killed", scenario, kill={"point": "epoch_start", "step": -1}) == -9
    assert zygote.train(tmp_path / "killed", scenario) == 0

    assert resumed_steps(tmp_path / "killed") == []
    assert_same_outcome(Outcome(tmp_path / "base"), Outcome(tmp_path / "killed"))
