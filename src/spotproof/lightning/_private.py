"""Every private attribute of Lightning that Spotproof touches, in one place; tests/unit/lightning names what broke.

Why at all: Lightning offers no hook between two batches (``on_train_batch_start`` comes after the batch was fetched and
counted, ``on_train_batch_end`` before validation, schedulers and counters are done), resets epoch metrics on a
resume, and replays validation or skips scheduler updates by guessing from counters where it stood. A checkpoint taken
exactly between two batches, with nothing half done, needs no guessing.

Source: lightning 2.6.6, ``loops/fit_loop.py``, ``loops/training_epoch_loop.py``,
``trainer/connectors/logger_connector``.
"""

import copy
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torchmetrics
from lightning.fabric.utilities.types import _Stateful
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loops.fetchers import _DataLoaderIterDataFetcher
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync

from spotproof.checkpoint import RngState
from spotproof.checkpoint.order import can_be_resumed, resumable_loader

__all__ = [
    "FitHooks",
    "NoticeHooks",
    "batches_that_stepped",
    "begin_reading_now",
    "continue_tensorboard",
    "dump_checkpoint",
    "handlers_to_restore",
    "is_between_optimizer_steps",
    "loader_states",
    "logged_steps",
    "positions",
    "restore_run_state",
    "run_state",
    "unresumable_loaders",
]


class FitHooks:
    """Puts calls between the batches, after the training, and where the loaders are ready but not started."""

    def __init__(
        self,
        trainer: "pl.Trainer",
        *,
        before_batch: Callable[[], None],
        after_training: Callable[[], None],
        on_order_mismatch: Callable[[str], None],
    ) -> None:
        self._fit_loop: Any = trainer.fit_loop
        self._epoch_loop: Any = trainer.fit_loop.epoch_loop
        self._before_batch = before_batch
        self._after_training = after_training
        self._on_order_mismatch = on_order_mismatch
        self.loader_states: list[dict[str, Any]] | None = None
        """Positions to go on from, until training starts."""
        self.rng_of_finished_run: dict[str, Any] | None = None
        """Generator states to set before the loaders start, if a finished run is given more epochs."""
        self.is_resuming = False
        """Whether the loops were loaded from a checkpoint made between two batches."""
        self._install()

    def _install(self) -> None:
        advance, start, end = self._epoch_loop.advance, self._epoch_loop.on_run_start, self._fit_loop.on_run_end

        def advance_after_call(data_fetcher: Any) -> None:
            self._before_batch()
            advance(data_fetcher)

        def start_without_restart(data_fetcher: Any) -> None:
            start(data_fetcher)
            if self.is_resuming:
                # Nothing is half done, so there is nothing to restart. Left on, Lightning would skip validations and
                # plateau schedulers of the epoch and count a step twice.
                self._fit_loop._restarting = False
                self._epoch_loop.restarting = False
                self.is_resuming = False

        def end_with_call() -> None:
            end()
            self._after_training()

        self._epoch_loop.advance = advance_after_call
        self._epoch_loop.on_run_start = start_without_restart
        self._fit_loop.on_run_end = end_with_call
        self._fit_loop._load_combined_loader_states = self._prepare_loaders

    def remove(self) -> None:
        """Leave the loops as they were."""
        for loop, name in (
            (self._epoch_loop, "advance"),
            (self._epoch_loop, "on_run_start"),
            (self._fit_loop, "on_run_end"),
            (self._fit_loop, "_load_combined_loader_states"),
        ):
            vars(loop).pop(name, None)

    def _prepare_loaders(self) -> None:
        combined = self._fit_loop._combined_loader
        combined.flattened = [
            resumable_loader(loader, self._on_order_mismatch) if can_be_resumed(loader) else loader
            for loader in combined.flattened
        ]
        if self.rng_of_finished_run is not None:
            for loader, state in zip(combined.flattened, self.loader_states or [], strict=False):
                if hasattr(loader, "begin_after"):
                    loader.begin_after(state)
            RngState().load_state_dict(self.rng_of_finished_run)
        elif self.loader_states:
            combined._load_state_dicts(self.loader_states)
        else:  # a plain Lightning checkpoint, or none
            type(self._fit_loop)._load_combined_loader_states(self._fit_loop)


class NoticeHooks:
    """Puts calls where a notice is acted on between two safe points: around each fetch, and around validation.

    Install it after :class:`FitHooks`, whose ``advance`` and ``on_run_start`` it goes around.
    """

    def __init__(
        self,
        trainer: "pl.Trainer",
        *,
        before_fetch: Callable[[], None],
        after_fetch: Callable[[], None],
        before_validation: Callable[[], None],
        before_owed_validation: Callable[[], None],
        on_woken: Callable[[], None],
        wake: type[BaseException],
    ) -> None:
        self._epoch_loop: Any = trainer.fit_loop.epoch_loop
        self._val_loop: Any = trainer.fit_loop.epoch_loop.val_loop
        self._before_fetch, self._after_fetch = before_fetch, after_fetch
        self._before_validation = before_validation
        self._before_owed_validation = before_owed_validation
        self._on_woken, self._wake = on_woken, wake
        self._fetches_between_steps = False
        self.owes_validation = False
        """Whether the loops were loaded from a checkpoint made after a batch and before the validation that follows."""
        self._install()

    def _install(self) -> None:
        advance, advance_end = self._epoch_loop.advance, self._epoch_loop.on_advance_end
        start = self._epoch_loop.on_run_start

        def advance_until_woken(data_fetcher: Any) -> None:
            # With dataloader_iter the step itself fetches, so that its work is half done then.
            self._fetches_between_steps = not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
            try:
                advance(data_fetcher)
            except self._wake:
                self._on_woken()
                raise

        def end_with_validation(data_fetcher: Any) -> None:
            if not self._epoch_loop._skip_next_val and self._epoch_loop._should_check_val_fx(data_fetcher):
                self._before_validation()
            try:
                advance_end(data_fetcher)
            except self._wake:
                self._on_woken()
                raise

        def start_with_owed_validation(data_fetcher: Any) -> None:
            start(data_fetcher)
            if not self.owes_validation:
                return
            self.owes_validation = False
            self._before_owed_validation()
            self._val_loop.restarting = False
            # Due when the checkpoint was made; a time trigger would not say so again.
            self._epoch_loop._should_check_val_fx = lambda data_fetcher: True
            try:
                advance_end(data_fetcher)
            finally:
                del self._epoch_loop._should_check_val_fx
            self._epoch_loop.on_iteration_done()

        _around(self._epoch_loop, "_on_before_fetch", after=self._fetch_begins)
        _around(self._epoch_loop, "_on_after_fetch", before=self._after_fetch)
        _around(self._val_loop, "_on_before_fetch", after=self._before_fetch)
        _around(self._val_loop, "_on_after_fetch", before=self._after_fetch)
        self._epoch_loop.advance = advance_until_woken
        self._epoch_loop.on_advance_end = end_with_validation
        self._epoch_loop.on_run_start = start_with_owed_validation

    def _fetch_begins(self) -> None:
        if self._fetches_between_steps:
            self._before_fetch()

    def remove(self) -> None:
        """Leave the loops as they were."""
        for loop, names in (
            (self._epoch_loop, ("advance", "on_advance_end", "on_run_start", "_on_before_fetch", "_on_after_fetch")),
            (self._val_loop, ("_on_before_fetch", "_on_after_fetch")),
        ):
            for name in names:
                vars(loop).pop(name, None)


def _around(target: Any, name: str, *, before: Callable[[], None] | None = None, after: Any = None) -> None:
    original = getattr(target, name)

    def call() -> None:
        if before is not None:
            before()
        original()
        if after is not None:
            after()

    setattr(target, name, call)


def begin_reading_now(trainer: "pl.Trainer") -> None:
    """Set the generators of the training data to where the resumed pass goes on, before validation uses them, too."""
    for loader in trainer.fit_loop._combined_loader.flattened if trainer.fit_loop._combined_loader else []:
        if hasattr(loader, "begin_reading"):
            loader.begin_reading()


def handlers_to_restore(trainer: "pl.Trainer") -> dict[int, Any]:
    """Return the signal handlers, by number, that Lightning puts back when it is done; may be changed."""
    handlers: dict[int, Any] = trainer._signal_connector._original_handlers
    return handlers


def positions(trainer: "pl.Trainer") -> list[dict[str, Any]]:
    """Return the positions of the training loaders, cut off from what the loaders do from here on."""
    combined = trainer.fit_loop._combined_loader
    return copy.deepcopy(combined._state_dicts()) if combined is not None else []


def dump_checkpoint(trainer: "pl.Trainer", loaders: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return what Lightning itself would save now, with the positions *loaders* if given; tensors are the live ones."""
    if loaders is None:
        return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    combined: Any = trainer.fit_loop._combined_loader
    combined._state_dicts = lambda: loaders
    try:
        return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    finally:
        del combined._state_dicts


def loader_states(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the loaders' positions that a checkpoint holds."""
    states: list[dict[str, Any]] = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
    return states


def batches_that_stepped(checkpoint: dict[str, Any]) -> int:
    """Return the step under which the next metrics will be logged."""
    step: int = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    return step


def logged_steps(trainer: "pl.Trainer") -> int:
    """Return the step under which the next metrics would be logged."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def unresumable_loaders(trainer: "pl.Trainer") -> list[str]:
    """Return the types of the training loaders whose position can't be saved."""
    combined = trainer.fit_loop._combined_loader
    loaders = combined.flattened if combined is not None else []
    return [type(getattr(dl, "dataset", dl)).__name__ for dl in loaders if not isinstance(dl, _Stateful)]


def is_between_optimizer_steps(trainer: "pl.Trainer") -> bool:
    """Whether no gradients wait for the rest of their accumulation."""
    return not trainer.fit_loop._should_accumulate()


def run_state(trainer: "pl.Trainer") -> dict[str, Any]:
    """Return what Lightning leaves out of its checkpoints and a run depends on: metrics of the epoch that is under
    way, the values that callbacks monitor, and flags."""
    connector = trainer._logger_connector
    return {
        "callback_metrics": dict(connector._callback_metrics),
        "logged_metrics": dict(connector._logged_metrics),
        "progress_bar_metrics": dict(connector._progress_bar_metrics),
        "first_loop_iter": connector._first_loop_iter,
        "current_fx": connector._current_fx,
        "results": {key: _result_state(metric) for key, metric in trainer.fit_loop.epoch_loop._results.items()},
        "torchmetrics": {
            name: {
                "states": {state: getattr(metric, state) for state in metric._defaults},
                "update_count": metric._update_count,
            }
            for name, metric in _torchmetrics(trainer.lightning_module)
        },
        "should_stop": trainer.should_stop,
        "last_reload_epoch": trainer.fit_loop._last_train_dl_reload_epoch,
        # With manual optimization nobody but the user knows whether gradients wait for the next batch; otherwise they
        # do where a notice came in the middle of an accumulation.
        "gradients": {}
        if trainer.lightning_module.automatic_optimization and is_between_optimizer_steps(trainer)
        else {n: p.grad for n, p in trainer.lightning_module.named_parameters() if p.grad is not None},
    }


def restore_run_state(trainer: "pl.Trainer", state: dict[str, Any]) -> None:
    """Set what :func:`run_state` returned."""
    module = trainer.lightning_module
    device = module.device
    connector = trainer._logger_connector
    connector._callback_metrics = _to_device(state["callback_metrics"], device)
    connector._logged_metrics = _to_device(state["logged_metrics"], device)
    connector._progress_bar_metrics = dict(state["progress_bar_metrics"])
    connector._first_loop_iter = state["first_loop_iter"]
    connector._current_fx = state["current_fx"]
    for name, metric in _torchmetrics(module):
        saved = state["torchmetrics"].get(name)
        if saved is not None:
            for key, value in saved["states"].items():
                setattr(metric, key, _to_device(value, metric.device))
            metric._update_count = saved["update_count"]
            metric._computed = None
    results = trainer.fit_loop.epoch_loop._results
    for key, saved in state["results"].items():
        results[key] = _restored_result(saved, trainer).to(device)
    trainer.should_stop = state["should_stop"]
    for name, parameter in module.named_parameters():
        if name in state["gradients"]:
            parameter.grad = state["gradients"][name].to(parameter.device)
    trainer.fit_loop._last_train_dl_reload_epoch = state["last_reload_epoch"]


def _torchmetrics(module: torch.nn.Module) -> list[tuple[str, Any]]:
    return [(name, child) for name, child in module.named_modules() if isinstance(child, torchmetrics.Metric)]


_META = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")


def _result_state(metric: Any) -> dict[str, Any]:
    meta, sync = metric.meta, metric.meta.sync
    return {
        "meta": {name: getattr(meta, name) for name in (*_META, "dataloader_idx", "metric_attribute")},
        "reduce_fx": meta.reduce_fx.__name__,
        "sync": {"_should": sync.should, "rank_zero_only": sync.rank_zero_only, "_op": sync.op},
        "is_tensor": metric.is_tensor,
        "has_reset": metric.has_reset,
        "update_count": metric._update_count,
        "forward_cache": metric._forward_cache,
        "value": metric.value if metric.is_tensor else None,
        "cumulated_batch_size": getattr(metric, "cumulated_batch_size", None) if metric.is_tensor else None,
    }


def _restored_result(saved: dict[str, Any], trainer: "pl.Trainer") -> Any:
    reduce_fx = saved["reduce_fx"]
    meta = _Metadata(**saved["meta"], reduce_fx=getattr(torch, reduce_fx))
    meta.sync = _Sync(fn=trainer.strategy.reduce, **saved["sync"])
    metric = _ResultMetric(meta, saved["is_tensor"])
    if saved["is_tensor"]:
        metric.value = saved["value"]
        if saved["cumulated_batch_size"] is not None:
            metric.cumulated_batch_size = saved["cumulated_batch_size"]
    else:
        metric.value = trainer.lightning_module.get_submodule(saved["meta"]["metric_attribute"])
    metric._forward_cache = saved["forward_cache"]
    metric.has_reset = saved["has_reset"]
    metric._update_count = saved["update_count"]
    return metric


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_device(item, device) for item in value]
    return value


def continue_tensorboard(logger: TensorBoardLogger, version: int | str, step: int) -> None:
    """Make *logger* write on in the folder of *version*; what was logged at *step* and after is superseded.

    Lightning opens the logger before any callback is asked, which makes an empty folder of the next version; that is
    removed. TensorBoard drops the superseded points when it reads a file that begins with the purge step.
    """
    opened = logger._experiment
    if opened is not None:
        opened.close()
        folder = logger.log_dir
        for name in logger._fs.ls(folder, detail=False):
            # Only the file just made, which holds nothing but its header, and only if the folder is not the one wanted.
            if logger.version != version and logger._fs.size(name) < 200:
                logger._fs.rm(name)
        if logger.version != version and not logger._fs.ls(folder, detail=False):
            logger._fs.rmdir(folder)
    logger._experiment = None
    logger._version = version
    logger._kwargs["purge_step"] = step
