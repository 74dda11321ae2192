"""A notice, wherever it falls: the last completed step is durable, the process gone, and the resumed run exact."""

import json

import pytest

from conftest import Outcome, assert_same_outcome
from spotproof.checkpoint import newest_verified
from spotproof.checkpoint.journal import read_events, recorded_attempts
from spotproof.events import AttemptEnded, CheckpointCommitted, NoticeReceived, Resumed, Warned
from spotproof.storage import LocalStorage

EPOCH = 11  # optimizer steps
SIGTERM, SIGUSR1 = 15, 10
INTERRUPTED = 143

SCENARIOS = {
    "plain": {},
    "rare_saves": {"every": 100},
    "two_workers": {"workers": 2, "every": 100},
    "mid_epoch_validation": {"val_check_interval": 4, "workers": 2, "every": 100, "val_workers": 1},
    "averaged_weights": {"callbacks": ["moving average"], "every": 100},
    "accumulation": {"accumulate": 4, "every": 100},
    "manual": {"manual": True, "every": 100},
    "two_loaders": {"combined": "max_size_cycle", "every": 100},
}
NO_STEP = None
CASES = {
    # name: scenario, kill, the step that the next attempt resumes from
    "in set-up": ("plain", {"point": "setup", "step": 0, "hangs": True}, NO_STEP),
    "in the sanity check": ("plain", {"point": "sanity_check", "step": 0, "hangs": True}, NO_STEP),
    "in a step": ("rare_saves", {"point": "training_step", "step": 5}, 6),
    "in an epoch's last step": ("rare_saves", {"point": "training_step", "step": 10}, 11),
    "after a step": ("two_workers", {"point": "on_train_batch_end", "step": 8}, 8),
    "in validation": ("rare_saves", {"point": "validation_step", "step": 11}, 11),
    "in validation within an epoch": ("mid_epoch_validation", {"point": "validation_step", "step": 8}, 8),
    "in validation with averaged weights": ("averaged_weights", {"point": "validation_step", "step": 11}, 11),
    "in validation, optimizing by hand": ("manual", {"point": "validation_step", "step": 5}, 5),
    "after validation": ("two_workers", {"point": "on_validation_end", "step": 11}, 11),
    "between epochs": ("rare_saves", {"point": "on_train_epoch_end", "step": 22}, 22),
    "at an epoch's start": ("two_workers", {"point": "on_train_epoch_start", "step": 11}, 11),
    "waiting for a batch": ("rare_saves", {"point": "fetch", "step": 22 + 4 * 7 + 2, "hangs": True}, 7),
    "waiting for workers": ("two_workers", {"point": "fetch", "step": 4 * 2 + 3, "hangs": True}, None),
    "waiting for two loaders": ("two_loaders", {"point": "fetch", "step": 22 + 4 * 5 + 1, "hangs": True}, 5),
    "while gradients wait": ("accumulation", {"point": "on_train_batch_start", "step": 1}, 1),
    "waiting while gradients wait": ("accumulation", {"point": "fetch", "step": 22 + 4 * 6 + 1, "hangs": True}, 1),
    "at the end": ("rare_saves", {"point": "on_train_end", "step": 33}, 33),
}


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Give the outcome of a scenario without a notice; trained once."""
    outcomes = {}

    def outcome(name):
        if name not in outcomes:
            folder = tmp_path_factory.mktemp(name)
            assert zygote.train(folder, SCENARIOS[name]) == 0, (folder / "log.txt").read_text()
            outcomes[name] = Outcome(folder)
        return outcomes[name]

    return outcome


def events(folder, attempt=0, kind=object):
    """Return what an attempt told."""
    return [event for event in read_events(LocalStorage(folder / "checkpoints"), attempt) if isinstance(event, kind)]


def log(folder):
    return (folder / "log.txt").read_text()


@pytest.mark.parametrize(("name", "kill", "step"), CASES.values(), ids=CASES)
def test_a_notice_anywhere(zygote, undisturbed, tmp_path, name, kill, step):
    """The process leaves with 143, from whatever it waits for, with its last step saved; the next attempt is exact."""
    base = undisturbed(name)

    code = zygote.train(tmp_path, SCENARIOS[name], kill={"signal": SIGTERM, **kill})

    assert code == INTERRUPTED, log(tmp_path)
    newest = newest_verified(LocalStorage(tmp_path / "checkpoints"))
    if kill["point"] in ("setup", "sanity_check"):
        assert newest is None
        assert "nothing was trained yet" in log(tmp_path)
    else:
        (notice,) = events(tmp_path, kind=NoticeReceived)
        assert (notice.signal, notice.step) == ("SIGTERM", newest.step)
        assert newest.step == (step or newest.step) > 0
        assert [event.outcome for event in events(tmp_path, kind=AttemptEnded)] == ["notice"]
    assert zygote.train(tmp_path, SCENARIOS[name]) == 0, log(tmp_path)
    assert_same_outcome(base, Outcome(tmp_path))
    if newest is not None:
        assert [event.step for event in events(tmp_path, 1, Resumed)] == [newest.step]
