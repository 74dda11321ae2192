"""What of transformers and accelerate Spotproof touches that they do not promise to keep.

Guarded by tests/unit/huggingface/test_transformers_names.py, which names what broke.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers.trainer
from accelerate.data_loader import DataLoaderAdapter

__all__ = ["TOTALS", "is_prepared", "kept_eval_loaders", "set_base_loader", "without_skipping"]

_module: Any = transformers.trainer

TOTALS = (
    "_tr_loss",
    "_total_loss_scalar",
    "_globalstep_last_logged",
    "_initial_num_input_tokens_seen",
    "_initial_global_step",
    "current_flos",
)
"""What the Trainer adds up between two logs, and since the training began; it sets them anew in each ``train()``."""


def is_prepared(loader: Any) -> bool:
    """Whether *loader* is accelerate's, which reads one batch ahead to know the last one."""
    return issubclass(type(loader), DataLoaderAdapter)  # isinstance() is told otherwise


def kept_eval_loaders(trainer: Any) -> dict[str, Any]:
    """Return the evaluation loaders that *trainer* keeps because their workers persist, by name."""
    kept: dict[str, Any] = getattr(trainer, "_eval_dataloaders", {})
    return kept


def set_base_loader(loader: Any, base: Any) -> None:
    """Let accelerate's *loader* read from *base*."""
    loader.base_dataloader = base


@contextmanager
def without_skipping() -> Iterator[None]:
    """Keep the Trainer from skipping batches to find the place to resume at: the loader knows it."""
    kept = _module.skip_first_batches
    _module.skip_first_batches = lambda loader, num_batches=0: loader
    try:
        yield
    finally:
        _module.skip_first_batches = kept
