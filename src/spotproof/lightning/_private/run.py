"""What Lightning leaves out of its checkpoints and a run depends on: metrics of the epoch under way, flags.

Source: lightning 2.6.6, ``trainer/connectors/logger_connector``.
"""

import builtins
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync

from spotproof.lightning._private.loops import is_between_optimizer_steps

__all__ = ["restore_run_state", "run_state"]


def run_state(trainer: "pl.Trainer") -> dict[str, Any]:
    """Return metrics of the epoch that is under way, the values that callbacks monitor, and flags."""
    connector = trainer._logger_connector
    return {
        "callback_metrics": dict(connector._callback_metrics),
        "logged_metrics": dict(connector._logged_metrics),
        "progress_bar_metrics": dict(connector._progress_bar_metrics),
        "first_loop_iter": connector._first_loop_iter,
        "current_fx": connector._current_fx,
        "results": {key: _result_state(metric) for key, metric in trainer.fit_loop.epoch_loop._results.items()},
        "should_stop": trainer.should_stop,
        "last_reload_epoch": trainer.fit_loop._last_train_dl_reload_epoch,
        "last_val_reload_epoch": trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch,
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
    results = trainer.fit_loop.epoch_loop._results
    for key, saved in state["results"].items():
        results[key] = _restored_result(saved, trainer).to(device)
    trainer.should_stop = state["should_stop"]
    for name, parameter in module.named_parameters():
        if name in state["gradients"]:
            parameter.grad = state["gradients"][name].to(parameter.device)
    trainer.fit_loop._last_train_dl_reload_epoch = state["last_reload_epoch"]
    trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch = state["last_val_reload_epoch"]


_BUILTIN_REDUCTIONS = (min, max, sum)
_META = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")


def _result_state(metric: Any) -> dict[str, Any]:
    meta, sync = metric.meta, metric.meta.sync
    return {
        "meta": {name: getattr(meta, name) for name in (*_META, "dataloader_idx", "metric_attribute")},
        "reduce_fx": [meta.reduce_fx in _BUILTIN_REDUCTIONS, meta.reduce_fx.__name__],
        "sync": {"_should": sync.should, "rank_zero_only": sync.rank_zero_only, "_op": sync.op},
        "is_tensor": metric.is_tensor,
        "has_reset": metric.has_reset,
        "update_count": metric._update_count,
        "forward_cache": metric._forward_cache,
        "value": metric.value if metric.is_tensor else None,
        "cumulated_batch_size": getattr(metric, "cumulated_batch_size", None) if metric.is_tensor else None,
    }


def _restored_result(saved: dict[str, Any], trainer: "pl.Trainer") -> Any:
    is_builtin, reduction = saved["reduce_fx"]
    meta = _Metadata(**saved["meta"], reduce_fx=getattr(builtins if is_builtin else torch, reduction))
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
