"""Where stock Lightning loses or falsifies a training, and the same training with SpotCheckpoint does not.

Each test has two halves. If the first one fails, Lightning was mended, and the test, with the words about it, can go.
"""

import itertools
import json
import os
import signal

import loop_stock  # noqa: F401 registers its kinds
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from outcomes import Outcome, assert_same_outcome

from spotproof.checkpoint import newest_verified
from spotproof.lightning import SpotCheckpoint
from spotproof.storage import LocalStorage

STOCK = {"mutate": "stock"}
BATCH_8 = {"point": "batch_end", "step": 8}
"""In the first epoch of 11 batches, after the save of step 5."""


def ids(outcome, epoch):
    """Return the samples of an epoch, in order."""
    batches = sorted(
        (int(key[2].split()[0]), value[0]) for key, value in outcome.trace.items() if key[:2] == ("batch", epoch)
    )
    return [sample for _, batch in batches for sample in batch]


def log_of(folder):
    """Return what a training printed."""
    return (folder / "log.txt").read_text()


@pytest.fixture
def undisturbed_and_killed(zygote, tmp_path):
    """Give what a kind of training leaves undisturbed, and what it leaves killed and resumed."""

    def outcomes(name, *, kill=BATCH_8, **how):
        base, killed = (tmp_path / f"{name} {label} {how}" for label in ("base", "killed"))
        assert zygote.train(base, {"loop": name}, **how) == 0, log_of(base)
        assert zygote.train(killed, {"loop": name}, kill=kill, **how) == -9, log_of(killed)
        assert zygote.train(killed, {"loop": name}, **how) == 0, log_of(killed)
        return Outcome(base), Outcome(killed)

    return outcomes


def test_samples_of_a_shuffled_epoch(undisturbed_and_killed):
    """Stock draws a new order for the rest of the epoch: samples come twice, others never."""
    _, killed = undisturbed_and_killed("shuffled", **STOCK)
    assert len(set(ids(killed, 0))) < 44

    base, killed = undisturbed_and_killed("shuffled")
    assert len(set(ids(killed, 0))) == 44
    assert_same_outcome(base, killed)


def test_random_numbers(undisturbed_and_killed):
    """Stock saves no generators: with the data in order, dropout still makes another model of it."""
    base, killed = undisturbed_and_killed("dropped_out", **STOCK)
    with pytest.raises(AssertionError):
        assert_same_outcome(base, killed)

    assert_same_outcome(*undisturbed_and_killed("dropped_out"))


def test_means_over_an_epoch(undisturbed_and_killed):
    """Stock averages only the batches after the resume: another number for early stopping and best-k to go by."""
    base, killed = undisturbed_and_killed("averaged_over_epochs", **STOCK)
    name = ("epoch", "training 0")
    assert base.trace[name]["train_loss_epoch"] != killed.trace[name]["train_loss_epoch"]

    base, killed = undisturbed_and_killed("averaged_over_epochs")
    assert base.trace[name]["train_loss_epoch"] == killed.trace[name]["train_loss_epoch"]
    assert_same_outcome(base, killed)


def test_validation_due_at_the_step_of_a_save(undisturbed_and_killed):
    """Killed before the validation that follows a save, stock skips it for good."""
    kill = {"point": "validation", "step": 4}
    base, killed = undisturbed_and_killed("validated_at_saves", kill=kill, **STOCK)
    name = ("epoch", "validation 0 4")
    assert name in base.trace
    assert name not in killed.trace

    assert_same_outcome(*undisturbed_and_killed("validated_at_saves", kill=kill))


def test_names_of_files(undisturbed_and_killed):
    """Stock finds its own files of the killed attempt in the way, and names the new ones otherwise."""
    base, killed = undisturbed_and_killed("best_and_last_files", kill={"point": "batch_end", "step": 10}, **STOCK)
    assert base.final["files"].keys() != killed.final["files"].keys()

    assert_same_outcome(*undisturbed_and_killed("best_and_last_files", kill={"point": "batch_end", "step": 10}))


def test_a_curve_in_one_place(zygote, tmp_path):
    """Stock begins another TensorBoard folder in each attempt, with the same steps in both."""
    for folder, how in ((tmp_path / "stock", STOCK), (tmp_path / "spot", {})):
        assert zygote.train(folder, {"loop": "curves"}, kill=BATCH_8, **how) == -9
        assert zygote.train(folder, {"loop": "curves"}, **how) == 0, log_of(folder)

    def versions(name):
        return sorted(path.name for path in (tmp_path / name / "logs" / "lightning_logs").iterdir())

    assert versions("stock") == ["version_0", "version_1"]
    assert versions("spot") == ["version_0"]


def test_a_monitored_metric_that_is_not_there_yet(zygote, tmp_path):
    """With a monitor, stock saves nothing before the first validation, whatever every_n_train_steps says."""
    assert zygote.train(tmp_path / "stock", {"loop": "monitored"}, kill=BATCH_8, **STOCK) == -9
    assert not list((tmp_path / "stock").rglob("*.ckpt"))

    assert zygote.train(tmp_path / "spot", {"loop": "monitored"}, kill=BATCH_8) == -9
    assert newest_verified(LocalStorage(tmp_path / "spot" / "checkpoints")).step == 8


def test_a_failure_while_gradients_accumulate(zygote, tmp_path):
    """Saved on an exception, stock forgets the gradients that wait, and goes on as if they had been used."""

    def outcomes(**how):
        base, failed = (tmp_path / f"{label} {how}" for label in ("base", "failed"))
        failed.mkdir()
        (failed / "may_fail").touch()
        assert zygote.train(base, {"loop": "failing_while_accumulating"}, **how) == 0, log_of(base)
        assert zygote.train(failed, {"loop": "failing_while_accumulating"}, **how) == 1
        assert "RuntimeError: once" in log_of(failed)
        assert zygote.train(failed, {"loop": "failing_while_accumulating"}, **how) == 0, log_of(failed)
        return Outcome(base), Outcome(failed)

    base, failed = outcomes(**STOCK)
    assert any(not weights.equal(failed.final["module"][name]) for name, weights in base.final["module"].items())

    assert_same_outcome(*outcomes())


def test_a_newest_file_that_is_cut_short(zygote, tmp_path):
    """Stock does not start from a cut-short last.ckpt, with a good one beside it; we take the next older one."""
    for folder, how in ((tmp_path / "stock", STOCK), (tmp_path / "spot", {})):
        assert zygote.train(folder, {"loop": "shuffled"}, kill={"point": "batch_end", "step": 12}, **how) == -9

    last = tmp_path / "stock" / "stock" / "last.ckpt"
    assert len(list(last.parent.iterdir())) == 2
    os.truncate(last, last.stat().st_size // 2)
    assert zygote.train(tmp_path / "stock", {"loop": "shuffled"}, **STOCK) == 1

    storage = LocalStorage(tmp_path / "spot" / "checkpoints")
    newest = newest_verified(storage)
    pack = tmp_path / "spot" / "checkpoints" / newest.ranks[0].state.key
    os.truncate(pack, pack.stat().st_size // 2)
    assert zygote.train(tmp_path / "spot", {"loop": "shuffled"}) == 0, log_of(tmp_path / "spot")
    assert "passed over for the next older one" in log_of(tmp_path / "spot")


def test_the_newest_one_is_not_that_with_the_newest_time(zygote, tmp_path):
    """Files that a platform brought back have any times: stock goes by them, we do not."""
    for folder, how in ((tmp_path / "stock", STOCK), (tmp_path / "spot", {})):
        assert zygote.train(folder, {"loop": "shuffled"}, kill={"point": "batch_end", "step": 16}, **how) == -9
    old = tmp_path / "stock" / "stock" / "last-v1.ckpt"
    assert zygote.train(tmp_path / "other", {"loop": "shuffled"}, kill=BATCH_8, **STOCK) == -9
    (tmp_path / "other" / "stock" / "last.ckpt").rename(old)
    os.utime(old, (2e9, 2e9))
    assert zygote.train(tmp_path / "stock", {"loop": "shuffled"}, **STOCK) == 0, log_of(tmp_path / "stock")
    assert first_batch_again(tmp_path / "stock") == 5

    manifests = sorted((tmp_path / "spot" / "checkpoints").glob("step-*.json"))
    os.utime(manifests[0], (2e9, 2e9))
    assert zygote.train(tmp_path / "spot", {"loop": "shuffled"}) == 0, log_of(tmp_path / "spot")
    assert first_batch_again(tmp_path / "spot") == 15


def first_batch_again(folder):
    """Return the number of the first batch that was trained in the second attempt."""
    entries = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    numbers = [int(entry[2].split()[0]) for entry in entries if entry[0] == "batch"]
    return next(now for before, now in itertools.pairwise(numbers) if now != before + 1)


def test_a_kill_while_an_asynchronous_save_is_written(zygote, tmp_path):
    """Lightning's AsyncCheckpointIO deletes the old checkpoint before the new one is there: a kill leaves none."""
    kill = {"point": "batch_end", "step": 12}
    assert zygote.train(tmp_path / "stock", {"loop": "asynchronous"}, kill=kill, **STOCK) == -9
    assert not list((tmp_path / "stock").rglob("*.ckpt"))

    assert zygote.train(tmp_path / "spot", {"loop": "asynchronous"}, kill=kill) == -9
    assert newest_verified(LocalStorage(tmp_path / "spot" / "checkpoints")).step == 10


def test_sigterm(zygote, tmp_path):
    """Stock leaves without a checkpoint; we resume from the very step."""
    kill = {**BATCH_8, "signal": signal.SIGTERM}
    assert zygote.train(tmp_path / "stock", {"loop": "monitored"}, kill=kill, **STOCK) != 0
    assert not list((tmp_path / "stock").rglob("*.ckpt"))

    assert zygote.train(tmp_path / "spot", {"loop": "monitored"}, kill=kill) == 143
    assert newest_verified(LocalStorage(tmp_path / "spot" / "checkpoints")).step == 9


def test_steps_and_seconds_together(tmp_path):
    """Stock saves by steps or by time; we by whichever comes first."""
    from datetime import timedelta

    with pytest.raises(MisconfigurationException, match="mutually exclusive"):
        ModelCheckpoint(every_n_train_steps=100, train_time_interval=timedelta(minutes=10))

    SpotCheckpoint(tmp_path, every_n_steps=100, every_n_seconds=600.0)
