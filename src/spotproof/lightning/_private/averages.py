"""``StochasticWeightAveraging`` sets itself up at the beginning of an epoch, which a resume within it does not run.

Source: lightning 2.6.6, ``callbacks/stochastic_weight_avg.py``.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["restore_averages"]


def restore_averages(trainer: "pl.Trainer") -> None:
    """Put each averaging callback where the resumed epoch found it. Its own state has been loaded."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging) and callback._scheduler_state is not None:
            _restore_scheduler(trainer, callback)
            is_last = callback._max_epochs != -1 and trainer.current_epoch == callback.swa_end + 1
            if is_last and callback._model_contains_batch_norm:
                _restore_last_epoch(trainer, callback)


def _restore_scheduler(trainer: "pl.Trainer", callback: Any) -> None:
    """Let the callback swap in its scheduler, which it does in whatever epoch comes first, and average nothing."""
    if callback._initialized:
        return
    groups = trainer.optimizers[0].param_groups
    rates = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    max_epochs, last_update = callback._max_epochs, callback._latest_update_epoch
    callback._max_epochs, callback._latest_update_epoch = trainer.current_epoch + 1, trainer.current_epoch
    try:
        callback.on_train_epoch_start(trainer, trainer.lightning_module)
    finally:
        callback._max_epochs, callback._latest_update_epoch = max_epochs, last_update
    for group, saved in zip(groups, rates, strict=True):
        group.update(saved)  # a new scheduler makes a first step


def _restore_last_epoch(trainer: "pl.Trainer", callback: Any) -> None:
    """Batch statistics are gathered in an epoch of their own, without backward passes; weights were averaged before."""
    modules = [m for m in trainer.lightning_module.modules() if isinstance(m, _BatchNorm)]
    callback.momenta = {module: module.momentum for module in modules}
    for module in modules:
        module.momentum = None
    trainer.fit_loop.max_batches += 1
    trainer.fit_loop._skip_backward = True
    callback._accumulate_grad_batches = trainer.accumulate_grad_batches
    trainer.accumulate_grad_batches = int(trainer.fit_loop.max_batches)
