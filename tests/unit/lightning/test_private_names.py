"""Lightning's private attributes that Spotproof touches are still there.

If one of these fails after an upgrade, its name says what src/spotproof/lightning/_private.py must learn;
tests/faults/test_exact_resume.py says whether the others still mean the same.
"""

import dataclasses

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync

TRAINER = [
    "fit_loop.on_run_end",
    "fit_loop.setup_data",
    "fit_loop._combined_loader",
    "fit_loop._load_combined_loader_states",
    "fit_loop._last_train_dl_reload_epoch",
    "fit_loop._restarting",
    "fit_loop._should_accumulate",
    "fit_loop.epoch_loop.advance",
    "fit_loop.epoch_loop.on_run_start",
    "fit_loop.epoch_loop.restarting",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop._results",
    "_checkpoint_connector.dump_checkpoint",
    "_logger_connector._callback_metrics",
    "_logger_connector._logged_metrics",
    "_logger_connector._progress_bar_metrics",
    "_logger_connector._first_loop_iter",
    "_logger_connector._current_fx",
    "strategy.checkpoint_io",
    "enable_autolog_hparams",
    "should_stop",
]


@pytest.mark.parametrize("path", TRAINER)
def test_the_trainer_has(path):
    """Each attribute that is read, set or wrapped."""
    value = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    for name in path.split("."):
        assert hasattr(value, name), f"{type(value).__name__}.{name} is gone"
        value = getattr(value, name)


def test_setup_data_still_loads_loader_states_before_it_starts_the_loaders():
    """The place where loaders are wrapped: after they are ready, before their iterator is made."""
    import inspect

    source = inspect.getsource(pl.loops.fit_loop._FitLoop.setup_data)
    assert source.index("combined_loader.limits = limits") < source.index("self._load_combined_loader_states()")
    assert source.index("self._load_combined_loader_states()") < source.index("iter(self._data_fetcher)")


def test_the_result_collection_has_its_parts():
    """What the metrics of an epoch are saved from and made of again."""
    fields = {field.name for field in dataclasses.fields(_Metadata)}
    assert {
        *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "reduce_fx", "enable_graph"),
        *("add_dataloader_idx", "dataloader_idx", "metric_attribute", "_sync"),
    } == fields
    assert {field.name for field in dataclasses.fields(_Sync)} == {"fn", "_should", "rank_zero_only", "_op", "_group"}
    metric = _ResultMetric(_Metadata(fx="training_step", name="loss"), is_tensor=True)
    for name in ("value", "cumulated_batch_size", "has_reset", "is_tensor", "_forward_cache", "_update_count"):
        assert hasattr(metric, name), f"_ResultMetric.{name} is gone"


def test_the_tensorboard_logger_has_its_parts(tmp_path):
    """What it takes to write on in an earlier folder."""
    logger = TensorBoardLogger(tmp_path)
    for name in ("_experiment", "_version", "_kwargs", "_fs"):
        assert hasattr(logger, name), f"TensorBoardLogger.{name} is gone"
