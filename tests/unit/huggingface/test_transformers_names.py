"""What of transformers and accelerate Spotproof touches without their promise is still there.

If one of these fails after an upgrade, its name says what src/spotproof/huggingface must learn;
tests/faults/test_huggingface.py says whether the others still mean the same.
"""

import inspect

import pytest

pytest.importorskip("transformers")

import transformers.trainer
from accelerate.data_loader import DataLoaderAdapter, DataLoaderDispatcher, DataLoaderShard
from transformers import Trainer

from spotproof.huggingface._private import TOTALS


def source(function):
    return inspect.getsource(function)


def test_the_epoch_is_begun_by_name():
    """Each argument of _run_epoch that we replace is passed with its name."""
    called = source(Trainer._inner_training_loop).split("self._run_epoch(")[1]
    for name in ("epoch", "resume_from_checkpoint", "epochs_trained", "steps_trained_in_current_epoch"):
        assert f"{name}={name}" in called.split("return")[0]


def test_the_batches_of_a_step_are_fetched_in_one_place():
    """After everything of the step before, and nowhere else: that is where the Trainer is at rest."""
    epoch = source(Trainer._run_epoch)
    assert epoch.count("self.get_batch_samples(") == 1
    assert epoch.index("iter(train_dataloader)") < epoch.index("self.get_batch_samples(")
    assert epoch.index("for update_step in range(") < epoch.index("self.get_batch_samples(")


def test_skipping_can_be_kept_off():
    """By the name under which the Trainer calls it, and its generators by their method."""
    assert "skip_first_batches(" in source(Trainer._run_epoch)
    assert "self._load_rng_state(" in source(Trainer._run_epoch)
    assert hasattr(transformers.trainer, "skip_first_batches")


@pytest.mark.parametrize("name", TOTALS)
def test_what_is_added_up_has_its_name(name):
    """In the Trainer's loop."""
    assert f"self.{name}" in source(transformers.trainer)


@pytest.mark.parametrize("name", ["_init_training_state", "_finalize_training", "_evaluate", "evaluate"])
def test_the_trainer_has(name):
    """Each method that is overridden."""
    assert hasattr(Trainer, name)


@pytest.mark.parametrize("kind", [DataLoaderShard, DataLoaderDispatcher])
def test_accelerate_reads_one_batch_ahead(kind):
    """From its base loader, and begins to when the first batch is asked for."""
    assert issubclass(kind, DataLoaderAdapter)
    assert "self.base_dataloader.__iter__()" in source(kind.__iter__)
    assert inspect.isgeneratorfunction(kind.__iter__)


def test_the_evaluation_loaders_that_are_kept_have_their_name():
    """Where workers persist."""
    assert "_eval_dataloaders" in source(Trainer._get_dataloader)
