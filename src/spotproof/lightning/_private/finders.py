"""Searches for a learning rate or a batch size: made once, and their results taken over by resumed runs.

Source: lightning 2.6.6, ``callbacks/lr_finder.py``, ``callbacks/batch_size_finder.py``, ``tuner``.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.tuner.lr_finder import _determine_lr_attr_name
from lightning.pytorch.utilities.parsing import lightning_getattr, lightning_setattr

__all__ = ["found", "search_again", "take_over"]


def found(trainer: "pl.Trainer") -> list[dict[str, Any]]:
    """Return what each search has set."""
    module = trainer.lightning_module
    names = [_attribute(callback, module) for callback in _finders(trainer)]
    return [{"name": name, "value": lightning_getattr(module, name)} if name else {"name": None} for name in names]


def take_over(trainer: "pl.Trainer", results: list[dict[str, Any]]) -> None:
    """Set what :func:`found` returned, and leave out the searches of this ``fit``."""
    for callback, result in zip(_finders(trainer), results, strict=False):
        if result["name"] is not None:
            lightning_setattr(trainer.lightning_module, result["name"], result["value"])
        callback.on_fit_start = _nothing


def search_again(trainer: "pl.Trainer") -> None:
    """Undo :func:`take_over`."""
    for callback in _finders(trainer):
        vars(callback).pop("on_fit_start", None)


def _finders(trainer: "pl.Trainer") -> list[Any]:
    kinds = (LearningRateFinder, BatchSizeFinder)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kinds)]


def _attribute(callback: Any, module: "pl.LightningModule") -> str | None:
    if isinstance(callback, BatchSizeFinder):
        return callback._batch_arg_name
    return _determine_lr_attr_name(module, callback._attr_name) if callback._update_attr else None


def _nothing(*_: Any) -> None:
    pass
