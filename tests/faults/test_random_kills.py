"""SIGKILL at random times, again and again, until the training is through: the outcome is the undisturbed one."""

import random

import pytest
from outcomes import Outcome, assert_same_outcome

from spotproof.checkpoint import newest_verified
from spotproof.storage import LocalStorage

SCENARIOS = {
    "every step": {"every": 1, "epochs": 6},
    "workers": {"workers": 2, "every": 2, "val_check_interval": 4, "epochs": 4},
    "accumulation": {"accumulate": 3, "every": 1, "scheduler": "onecycle", "epochs": 6},
    "tensorboard": {"tensorboard": True, "every": 3, "callbacks": ["best and last"], "epochs": 6},
}


def campaign(zygote, folder, scenario, seed, num_kills, share=0.7):
    """Kill a training *num_kills* times, then let it finish; return how many kills met a running process.

    Each kill falls within *share* of the time that the training took undisturbed, just before.
    """
    folder.mkdir(exist_ok=True)
    assert zygote.train(folder / "warm-up", scenario) == 0
    base = folder / "base"
    assert zygote.train(base, scenario, settle=False) == 0, (base / "log.txt").read_text()
    alone_seconds = zygote.last_seconds
    rng = random.Random(seed)
    killed = folder / "killed"
    met = 0
    newest = -1
    for _ in range(num_kills):
        code = zygote.train(killed, scenario, settle=False, kill_after=rng.uniform(0.0, share) * alone_seconds)
        assert code in (0, -9), (killed / "log.txt").read_text()
        met += code == -9
        found = newest_verified(LocalStorage(killed / "checkpoints"))
        step = found.step if found else -1
        assert step >= newest, f"seed {seed}: the newest checkpoint went back from step {newest} to {step}"
        newest = step
        if code == 0:
            break
    assert zygote.train(killed, scenario) == 0, (killed / "log.txt").read_text()
    assert_same_outcome(Outcome(base), Outcome(killed))
    return met


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("workers", "tensorboard") else pytest.mark.slow) for name in SCENARIOS],
)
def test_a_few_random_kills(zygote, tmp_path, name):
    """Up to five kills at random times."""
    seed = 20 + list(SCENARIOS).index(name)
    for share in (0.7, 0.3, 0.1, 0.03):  # on a machine whose speed changes, all five may come too late
        if campaign(zygote, tmp_path / str(share), SCENARIOS[name], seed, 5):
            return
    pytest.fail("no kill met a running training")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_random_kills(zygote, tmp_path, name, seed):
    """More than a thousand kills over all seeds."""
    campaign(zygote, tmp_path, SCENARIOS[name], 1000 + seed, 25)
