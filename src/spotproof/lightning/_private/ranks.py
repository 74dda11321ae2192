"""What several ranks need of the trainer: which strategies there are, and where the checkpoint is chosen.

Source: lightning 2.6.6, ``trainer/connectors/checkpoint_connector.py``, ``strategies/ddp.py``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from spotproof.errors import SpecError

__all__ = ["choose_checkpoint", "forget_choice", "refuse_strategy", "restore_weights"]


def refuse_strategy(trainer: "pl.Trainer") -> None:
    """Return if the trainer's processes can save together.

    Raises:
        SpecError: They shard the model, or are made in a way that can't be resumed.
    """
    if trainer.world_size == 1:
        return
    strategy = trainer.strategy
    kind = type(strategy).__qualname__
    if not isinstance(strategy, DDPStrategy):
        raise SpecError(
            f"SpotCheckpoint does not work with {kind} and {trainer.world_size} processes.",
            why="Each of them would hold a part of the model that no other has, and parts are not saved yet.",
            do='Use strategy="ddp" where the model fits on one device, or devices=1, num_nodes=1.',
        )
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise SpecError(
            f"SpotCheckpoint does not work with processes that {kind} forks or spawns (ddp_spawn, ddp_notebook).",
            why="They are copies of a process that has begun already, and can't be told from it when they resume.",
            do='Use strategy="ddp" in a script, or torchrun.',
        )


def choose_checkpoint(trainer: "pl.Trainer", choose: Callable[[Any], Any]) -> None:
    """Let *choose* replace the path that ``fit`` was given, or None, before it is loaded. Called on every rank."""
    connector: Any = trainer._checkpoint_connector

    def resume_start(checkpoint_path: Any = None, *args: Any, **kwargs: Any) -> None:
        type(connector).resume_start(connector, choose(checkpoint_path), *args, **kwargs)

    connector.resume_start = resume_start


def forget_choice(trainer: "pl.Trainer") -> None:
    """Undo :func:`choose_checkpoint`."""
    vars(trainer._checkpoint_connector).pop("resume_start", None)


def restore_weights(trainer: "pl.Trainer", weights: Mapping[str, Any]) -> None:
    """Set parameters and buffers to *weights*, in place."""
    current = trainer.strategy.lightning_module_state_dict()
    with torch.no_grad():
        for name, value in weights.items():
            if isinstance(value, torch.Tensor) and isinstance(current.get(name), torch.Tensor):
                current[name].copy_(value)
