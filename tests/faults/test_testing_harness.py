"""What ``spotproof.testing`` says of a training is true: sound ones pass, and each that forgets something fails."""

import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from spotproof import CheckpointError, LaunchError, NotIdentical, SpecError
from spotproof.checkpoint import RngState, committed_steps
from spotproof.checkpoint.commit import SoleCommitter
from spotproof.checkpoint.manifest import manifest_key
from spotproof.storage import LocalStorage
from spotproof.testing import kill_at_every_call, kill_script

SCRIPT = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("plain_script.py")), "{checkpoints}"]


def training(*names, num_steps=3):
    """Return a training that saves the parts of these names."""

    def train(checkpointer):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        random.seed(0)  # a fork draws new seeds for it
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        parts = {"model": model, "optimizer": optimizer, "rng": RngState()}
        for name in names:
            checkpointer.register(name, parts[name])
        for step in range(checkpointer.restore() or 0, num_steps):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            checkpointer.save(step + 1)

    return train


# -- at every call ---------------------------------------------------------------------------------------------------


def test_a_sound_training_survives_every_kill(tmp_path):
    """The report tells each kill: at what, what was saved, what was found."""
    report = kill_at_every_call(training("model", "optimizer", "rng", num_steps=2), tmp_path / "kills")

    assert [kill.number for kill in report.kills] == list(range(len(report.kills)))
    assert len(report.kills) > 30
    assert report.final_step == 2
    assert {kill.saved_step for kill in report.kills} == {None, 1}
    assert {kill.found_step for kill in report.kills} == {None, 1, 2}
    assert all((kill.found_step or 0) >= (kill.saved_step or 0) for kill in report.kills)
    assert [path.name for path in (tmp_path / "kills").iterdir()] == ["undisturbed"]


@pytest.mark.parametrize(
    "forgotten",
    [pytest.param("model", marks=pytest.mark.slow), pytest.param("optimizer", marks=pytest.mark.slow), "rng"],
)
def test_what_is_forgotten_is_found(tmp_path, forgotten):
    """The first kill after which it matters is named, and the first difference."""
    names = [name for name in ("model", "optimizer", "rng") if name != forgotten]
    with pytest.raises(NotIdentical, match=r"Killed at file-system call \d+ .* and run again.*First difference: "):
        kill_at_every_call(training(*names), tmp_path / "kills")


@pytest.mark.slow
def test_a_checkpoint_that_is_lost_is_found(tmp_path, monkeypatch):
    """A writer that removes the old before the new is there."""
    commit = SoleCommitter.commit

    def hasty(self, *args):
        for step in committed_steps(self._storage) if "killed-at" in self._storage.url else ():
            self._storage.delete(manifest_key(step))
        return commit(self, *args)

    monkeypatch.setattr(SoleCommitter, "commit", hasty)
    with pytest.raises(CheckpointError, match=r"the checkpoint of step \d is lost: nothing is found"):
        kill_at_every_call(training("model", "optimizer", "rng", num_steps=2), tmp_path / "kills")


def test_another_end_is_found(tmp_path):
    """A training that always takes two more steps, wherever it begins."""

    def train(checkpointer):
        checkpointer.register("model", model := nn.Linear(1, 1))
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
        start = checkpointer.restore() or 0
        for step in range(start, start + 2):
            checkpointer.save(step + 1)

    with pytest.raises(NotIdentical, match="ended with step 3, not with step 2"):
        kill_at_every_call(train, tmp_path / "kills")


def test_a_training_that_fails_or_hangs_by_itself_is_told(tmp_path):
    """It is no kill of ours."""
    (tmp_path / "other").touch()

    def fails(checkpointer):
        raise ZeroDivisionError

    def hangs(checkpointer):
        import threading

        threading.Event().wait()

    def saves_nothing(checkpointer):
        pass

    with pytest.raises(CheckpointError, match="failed by itself, with exit code 1"):
        kill_at_every_call(fails, tmp_path / "fails")
    with pytest.raises(CheckpointError, match=r"longer than 0.5 s.*set_num_threads"):
        kill_at_every_call(hangs, tmp_path / "hangs", timeout_seconds=0.5)
    with pytest.raises(SpecError, match="saved no checkpoint"):
        kill_at_every_call(saves_nothing, tmp_path / "nothing")
    with pytest.raises(SpecError, match="not empty"):
        kill_at_every_call(fails, tmp_path)


# -- whole scripts ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sound_script_killed_at_steps(tmp_path):
    """Each kill meets it at that step, and it resumes from what was saved before."""
    report = kill_script(SCRIPT, tmp_path / "run", at_steps=[8, 40])

    report.check()
    assert report.is_identical
    assert report.final_step == 60
    assert len(report.kills) == 2
    assert all(kill.reached_step >= step for kill, step in zip(report.kills, [8, 40], strict=True))
    # At a commit nothing was under way, so that is what there is to resume from.
    assert all(resumed >= kill.reached_step for resumed, kill in zip(report.resumed_steps, report.kills, strict=True))


@pytest.mark.slow
def test_a_sound_script_killed_at_random(tmp_path):
    """Start-up included; the seed is told."""
    report = kill_script(SCRIPT, tmp_path / "run", num_kills=2, seed=5)

    report.check()
    assert report.seed == 5
    assert 1 <= len(report.kills) <= 2
    assert newest(tmp_path / "run" / "killed") == newest(tmp_path / "run" / "undisturbed") == 60


def newest(folder):
    return committed_steps(LocalStorage(folder))[0]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("rng", "step")]


@pytest.mark.parametrize("forgotten", ["optimizer", *SLOW])
def test_a_script_that_forgets_something_is_found(tmp_path, forgotten):
    """One kill in the middle is enough; where it first differs is told."""
    report = kill_script([*SCRIPT, forgotten], tmp_path / "run", at_steps=[20])

    assert len(report.kills) == 1
    assert not report.is_identical
    with pytest.raises(NotIdentical, match=r"Killed 1 times .*First difference: model/.* from step 2\d"):
        report.check()


@pytest.mark.slow
def test_a_script_that_can_not_be_judged_is_told(tmp_path):
    """It fails by itself, it saves nothing, the kills all came too late."""
    with pytest.raises(LaunchError, match=r"exit code 1. It said: .*train: no such file"):
        kill_script([*SCRIPT, "everything"], tmp_path / "fails")
    with pytest.raises(SpecError, match="saved no checkpoint"):
        kill_script(["true"], tmp_path / "nothing")
    with pytest.raises(LaunchError, match=r"longer than 0.2 s"):
        kill_script(["sleep", "60"], tmp_path / "slow", timeout_seconds=0.2)
    late = kill_script(SCRIPT, tmp_path / "late", at_steps=[1000])
    assert late.kills == ()
    assert late.is_identical
    with pytest.raises(NotIdentical, match=r"No kill met a running process"):
        late.check()
