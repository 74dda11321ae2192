"""Lightning's private attributes that Spotproof touches are still there.

If one of these fails after an upgrade, its name says what src/spotproof/lightning/_private must learn;
tests/faults/test_exact_resume.py and test_loops.py say whether the others still mean the same.
"""

import dataclasses
import inspect
import os

import lightning.pytorch as pl
import pytest
import torchmetrics
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync

from spotproof.lightning import _private as private

TRAINER = [
    "fit_loop.on_run_end",
    "fit_loop.setup_data",
    "fit_loop._combined_loader",
    "fit_loop._load_combined_loader_states",
    "fit_loop._last_train_dl_reload_epoch",
    "fit_loop._should_reload_train_dl",
    "fit_loop._restarting",
    "fit_loop._should_accumulate",
    "fit_loop.epoch_loop.advance",
    "fit_loop.epoch_loop.on_run_start",
    "fit_loop.epoch_loop.restarting",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop._restart_stage",
    "fit_loop.epoch_loop.update_restart_stage",
    "fit_loop.epoch_loop._results",
    "fit_loop.epoch_loop.on_advance_end",
    "fit_loop.epoch_loop.on_iteration_done",
    "fit_loop.epoch_loop._on_before_fetch",
    "fit_loop.epoch_loop._on_after_fetch",
    "fit_loop.epoch_loop._should_check_val_fx",
    "fit_loop.epoch_loop._skip_next_val",
    "fit_loop.epoch_loop.val_loop.setup_data",
    "fit_loop.epoch_loop.val_loop.restarting",
    "fit_loop.epoch_loop.val_loop._combined_loader",
    "fit_loop.epoch_loop.val_loop._data_fetcher",
    "fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch",
    "fit_loop.epoch_loop.val_loop._should_reload_val_dl",
    "fit_loop.epoch_loop.val_loop._on_before_fetch",
    "fit_loop.epoch_loop.val_loop._on_after_fetch",
    "fit_loop._data_fetcher",
    "fit_loop._skip_backward",
    "fit_loop.max_batches",
    "_val_check_time_interval",
    "_signal_connector._original_handlers",
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


AVERAGE = ["_scheduler_state", "_initialized", "_max_epochs", "_latest_update_epoch", "_model_contains_batch_norm"]
FILES = ["_last_global_step_saved", "_last_checkpoint_saved", "_defer_save_until_validation", "_last_time_checked"]


@pytest.mark.parametrize(
    ("callback", "names"),
    [
        (callbacks.StochasticWeightAveraging(0.1), [*AVERAGE[:2], *AVERAGE[3:], "momenta", "on_train_epoch_start"]),
        (callbacks.ModelCheckpoint(), [*FILES, "file_exists", "last_model_path", "current_score"]),
        (callbacks.LearningRateFinder(), ["_attr_name", "_update_attr", "on_fit_start"]),
        (callbacks.BatchSizeFinder(), ["_batch_arg_name", "on_fit_start"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_callback_has(callback, names):
    """What callbacks keep to themselves and a resume needs."""
    for name in names:
        assert hasattr(callback, name), f"{type(callback).__name__}.{name} is gone"


def test_the_averaging_callback_still_sets_itself_up_in_the_same_attributes():
    """Those that are not there before a training begins."""
    source = inspect.getsource(callbacks.StochasticWeightAveraging)
    for name in (*AVERAGE, "_accumulate_grad_batches", "swa_end"):
        assert name in source, f"StochasticWeightAveraging.{name} is gone"


def test_the_time_of_the_last_validation_is_still_the_trainers():
    """It is set where training begins."""
    assert "trainer._last_val_time" in inspect.getsource(pl.loops.fit_loop._FitLoop.setup_data)


def test_the_csv_logger_has_its_parts(tmp_path):
    """What it takes to write on in an earlier file."""
    logger = CSVLogger(tmp_path)
    for name in ("_version", "log_dir", "save_dir"):
        assert hasattr(logger, name), f"CSVLogger.{name} is gone"
    for name in ("log_dir", "metrics_file_path", "NAME_METRICS_FILE", "metrics", "metrics_keys", "save"):
        assert hasattr(logger.experiment, name), f"CSVLogger.experiment.{name} is gone"


def test_metrics_have_their_parts():
    """What torchmetrics keep to themselves."""
    for metric, names in (
        (torchmetrics.MeanMetric(), ("_defaults", "_update_count", "_computed")),
        (torchmetrics.MetricCollection([]), ("_groups", "_groups_checked", "_state_is_copy")),
        (torchmetrics.MetricTracker(torchmetrics.MeanMetric(), maximize=False), ("_increment_called", "increment")),
    ):
        for name in names:
            assert hasattr(metric, name), f"{type(metric).__name__}.{name} is gone"
    assert hasattr(torchmetrics.MetricCollection, "_compute_groups_create_state_ref")


def test_the_tensorboard_logger_has_its_parts(tmp_path):
    """What it takes to write on in an earlier folder."""
    logger = TensorBoardLogger(tmp_path)
    for name in ("_experiment", "_version", "_kwargs", "_fs"):
        assert hasattr(logger, name), f"TensorBoardLogger.{name} is gone"


def test_tensorboards_writer_tells_its_files(tmp_path):
    """The files that are open are part of each checkpoint, those of sub-folders too."""
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_scalars("pair", {"a": 1.0}, 0)
    paths = sorted(private.event_paths(logger))
    logger.experiment.flush()
    assert [os.path.getsize(path) > 50 for path in paths] == [True, True]
    assert [os.path.dirname(path) for path in paths] == [logger.log_dir, f"{logger.log_dir}/pair_a"]
    assert {"_experiment", "_version", "_kwargs"} <= vars(logger).keys()
    logger.finalize("success")
