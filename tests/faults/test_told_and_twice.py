"""What can't be exact is told when it shows, with the remedy; and scripts with more than one ``fit`` are exact, too."""

import loop_told  # noqa: F401 registers its kinds
import pytest
from outcomes import Outcome, assert_same_outcome, resumed_steps


def log_of(folder):
    """Return what a training printed."""
    return (folder / "log.txt").read_text()


def test_a_logger_that_is_not_continued(zygote, tmp_path):
    """A logger that we know nothing of is named, and one that we do is not."""
    assert zygote.train(tmp_path, {"loop": "logged_elsewhere"}) == 0, log_of(tmp_path)

    assert "What Elsewhere has logged can't be taken back" in log_of(tmp_path)
    assert "Give it a fixed run id" in log_of(tmp_path)
    assert "What CSVLogger has logged" not in log_of(tmp_path)


def test_steps_that_lightning_does_not_count(zygote, tmp_path):
    """Without counted steps nothing would ever be saved: that is told, with the remedy."""
    assert zygote.train(tmp_path, {"loop": "steps_past_lightning"}) == 0, log_of(tmp_path)

    assert "counted no optimizer step, so that nothing is saved" in log_of(tmp_path)
    assert "scaler.step(self.optimizers())" in log_of(tmp_path)


def test_parts_that_are_made_late(zygote, tmp_path):
    """A layer made in training could not be loaded by a resume: that is told at the first save that has it."""
    assert zygote.train(tmp_path, {"loop": "grown_late"}) == 0, log_of(tmp_path)

    assert "got new parts after training began (extra.bias, extra.weight)" in log_of(tmp_path)
    assert log_of(tmp_path).count("got new parts") == 1


def test_what_attributes_hold_that_can_not_be_saved(zygote, tmp_path):
    """Iterators, and lists of objects that grow, are named once each; what can be saved is not."""
    assert zygote.train(tmp_path, {"loop": "unsaved_attributes"}) == 0, log_of(tmp_path)

    assert log_of(tmp_path).count("module.schedule can't be saved: it is the position of an iterator (cycle)") == 1
    assert log_of(tmp_path).count("module.seen can't be saved: it is a list of what is no plain value") == 1
    assert log_of(tmp_path).count("can't be saved") == 2


@pytest.mark.parametrize("kill", [("batch_end", 8), ("test", 0)], ids=str)
def test_validation_and_test_after_fit(zygote, tmp_path, kill):
    """Killed in fit, or in the test after it, a script ends with the same results and the same rows."""
    scenario = {"loop": "tested_afterwards"}
    assert zygote.train(tmp_path / "base", scenario) == 0, log_of(tmp_path / "base")
    assert zygote.train(tmp_path / "killed", scenario, kill={"point": kill[0], "step": kill[1]}) == -9
    assert zygote.train(tmp_path / "killed", scenario) == 0, log_of(tmp_path / "killed")

    assert_same_outcome(Outcome(tmp_path / "base"), Outcome(tmp_path / "killed"))


def test_two_trainings_one_after_another(zygote, tmp_path):
    """Two trainers with a folder each, killed in the first and twice in the second, end as undisturbed ones."""
    scenario = {"loop": "trained_twice"}
    assert zygote.train(tmp_path / "base", scenario) == 0, log_of(tmp_path / "base")
    killed = tmp_path / "killed"
    for point, at in (("batch_end", 8), ("second", 5), ("second", 14)):
        assert zygote.train(killed, scenario, kill={"point": point, "step": at}) == -9, log_of(killed)
    assert zygote.train(killed, scenario) == 0, log_of(killed)

    assert resumed_steps(killed)[0] == 6
    assert [step > 0 for step in resumed_steps(killed, "second")] == [True, True]
    assert_same_outcome(Outcome(tmp_path / "base"), Outcome(killed))
