"""What the trainings in loop_kinds.py have in common: data, a small network, and what a kind consists of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

NUM_BATCHES = 11
"""Of an epoch."""


class Samples(Dataset):
    def __init__(self, number=44, classes=3):
        self.number, self.classes = number, classes

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        base = torch.sin(torch.arange(8.0) * (index + 1))
        return {"id": index, "x": base + torch.randn(8) * 0.1 + np.random.rand() * 0.1, "y": index % self.classes}


def loader(number=44, *, shuffle=False, batch_size=4):
    return DataLoader(Samples(number), batch_size=batch_size, shuffle=shuffle)


class Net(pl.LightningModule):
    """A small classifier; the kinds of trainings override what they are about."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x)

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch["x"]), batch["y"])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        loss = self.loss(batch)
        self.log("val_loss", loss)
        return {"loss": loss}

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


KINDS: dict[str, Callable[[Any], "Kind"]] = {}
"""By name: makes a training of a kind in a folder."""


def kind(make):
    """Name a kind of training after the function that makes it."""
    KINDS[make.__name__] = make
    return make


@dataclass
class Kind:
    """One kind of training: what differs from the plainest."""

    module: pl.LightningModule = field(default_factory=Net)
    callbacks: list[pl.Callback] = field(default_factory=list)
    trainer: dict[str, Any] = field(default_factory=dict)
    loggers: Any = False
    data: dict[str, Any] = field(
        default_factory=lambda: {
            "train_dataloaders": loader(shuffle=True),
            "val_dataloaders": loader(22, batch_size=11),
        }
    )
    every: int = 3
    """Optimizer steps between saves."""
    stock: dict[str, Any] = field(default_factory=dict)
    """How Lightning's own ModelCheckpoint saves where it is used in SpotCheckpoint's place."""
    afterwards: Callable[..., dict[str, Any]] | None = None
    """What the script does after its first ``fit``; returns what is to be compared of it."""
