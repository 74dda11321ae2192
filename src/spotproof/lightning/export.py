"""The best weights: chosen while training, kept in every checkpoint, written as one plain file at the end."""

import io
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from spotproof.storage import open_storage

__all__ = ["MODEL_FILE", "BestWeights", "copy_weights", "write_weights"]

MODEL_FILE = "model.pt"


class BestWeights(Callback):
    """Hold the weights of the best validation so far; a resumed run holds the same.

    Lightning's ``ModelCheckpoint`` remembers where its best *file* lies. After a reclaim that file is gone, or has come
    back from S3 older or younger than the checkpoint that is resumed from. So the weights themselves are part of this
    callback's state, and with it of every checkpoint: they come back together or not at all. The price is one more
    copy of the weights in a checkpoint.

    Put it before the callback that saves: a state that is saved in a hook then holds what that hook's validation found.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"] = "min") -> None:
        """Choose by the logged metric *monitor*, the lowest or the highest value."""
        self.monitor = monitor
        self.mode = mode
        self.score: float | None = None
        """Of the weights held; None while there are none."""
        self.weights: dict[str, Tensor] | None = None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._consider(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # For metrics of the training epoch. One of a validation was considered before, and is not better than itself.
        self._consider(trainer)

    def _consider(self, trainer: Trainer) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.monitor not in trainer.callback_metrics:
            return
        score = float(trainer.callback_metrics[self.monitor])
        is_better = self.score is None or is_improvement(score, self.score, self.mode)
        # Ranks that log without sync_dist have scores of their own, but gathering the weights takes all of them.
        if trainer.strategy.reduce_boolean_decision(is_better):
            self.score = score
            self.weights = copy_weights(trainer.strategy.lightning_module_state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score = state_dict["score"]
        self.weights = state_dict["weights"]


def is_improvement(score: float, best: float, mode: Literal["min", "max"]) -> bool:
    """Tell whether *score* beats *best*. Equal does not; NaN beats nothing and is beaten by any number."""
    if math.isnan(score):
        return False
    if math.isnan(best):
        return True
    return score < best if mode == "min" else score > best


def copy_weights(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of *state_dict*, copied to the host, contiguous, so that equal weights make equal files.

    Tied weights stay tied. What is no tensor is left out: it would need unpickling to be read.
    """
    copies: dict[tuple[Any, ...], Tensor] = {}
    weights = {}
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            continue
        place = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() == 0 or place not in copies:
            copies[place] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        weights[name] = copies[place]
    return weights


def write_weights(directory: str | os.PathLike[str], weights: Mapping[str, Tensor]) -> str:
    """Write ``model.pt`` into *directory*, whole or not at all, and return its place.

    ``torch.load(..., weights_only=True)`` reads it: a dict of names and tensors.
    """
    buffer = io.BytesIO()
    torch.save(dict(weights), buffer)
    storage = open_storage(directory)
    storage.put(MODEL_FILE, [buffer.getbuffer()])
    return f"{storage.url}/{MODEL_FILE}"
