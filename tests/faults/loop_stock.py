"""Kinds of trainings that stock Lightning does not resume as they were; see test_stock_lightning.py."""

import time

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from loop_net import Kind, Net, kind, loader
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Quiet(Dataset):
    """Samples without any randomness."""

    def __len__(self):
        return 44

    def __getitem__(self, index):
        return {"id": index, "x": torch.sin(torch.arange(8.0) * (index + 1)), "y": index % 3}


class Plain(Net):
    """Draws nothing at all."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def in_order():
    return {"train_dataloaders": DataLoader(Quiet(), batch_size=4), "val_dataloaders": loader(22, batch_size=11)}


@kind
def shuffled(folder):
    return Kind(every=5)


@kind
def dropped_out(folder):
    return Kind(data=in_order(), every=5)


@kind
def averaged_over_epochs(folder):
    return Kind(Plain(), data=in_order(), every=5)


@kind
def validated_at_saves(folder):
    return Kind(Plain(), trainer={"val_check_interval": 5}, data=in_order(), every=5)


@kind
def monitored(folder):
    return Kind(every=2, stock={"monitor": "val_loss"})


@kind
def curves(folder):
    return Kind(loggers=TensorBoardLogger(folder / "logs"), every=5)


class Fails(pl.Callback):
    """Raises once, in the middle of an accumulation."""

    def __init__(self, folder):
        self._mark = folder / "has_failed"

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (
            trainer.fit_loop.total_batch_idx == 5
            and not self._mark.exists()
            and (self._mark.parent / "may_fail").exists()
        ):
            self._mark.touch()
            raise RuntimeError("once")


@kind
def failing_while_accumulating(folder):
    return Kind(
        Plain(),
        [Fails(folder)],
        {"accumulate_grad_batches": 4},
        data=in_order(),
        every=1,
        stock={"save_on_exception": True, "every_n_train_steps": 0, "every_n_epochs": 1},
    )


class Slow(TorchCheckpointIO):
    """A disk that takes its time after the first file."""

    saved = 0

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        Slow.saved += 1
        if Slow.saved > 1:
            time.sleep(30)
        super().save_checkpoint(checkpoint, path, storage_options)


@kind
def asynchronous(folder):
    options = {"save_last": False, "save_top_k": 1}
    return Kind(trainer={"plugins": [AsyncCheckpointIO(Slow())]}, every=5, stock=options)
