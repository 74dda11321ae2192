"""Kinds of trainings, continued: state in corners where nothing of torch's or Lightning's looks.

See loop_kinds.py.
"""

import collections
import dataclasses
import enum
import functools
import random

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import CSVLogger
from loop_net import Kind, Net, Samples, kind
from torch.utils.data import DataLoader, WeightedRandomSampler, default_collate, random_split

AUGMENTATION = np.random.default_rng(11)
SHARED = {"mixing": random.Random(12)}

Transition = collections.namedtuple("Transition", "state action")


class Phase(enum.Enum):
    WARM_UP = 1
    TRAINING = 2


@dataclasses.dataclass
class Memory:
    loss: float
    seen: torch.Tensor


@dataclasses.dataclass(slots=True)
class Pace:
    num_steps: int = 0
    mean: float = 0.0


class Told(Samples):
    """Knows the epoch because a callback tells it, and draws from what its module holds."""

    def __init__(self, number=44):
        super().__init__(number)
        self.epoch = 0

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["x"] = item["x"] * (1 + 0.1 * self.epoch) + AUGMENTATION.normal() * 0.1 + SHARED["mixing"].random() * 0.1
        return item


class Tells(pl.Callback):
    def on_train_epoch_start(self, trainer, module):
        trainer.train_dataloader.dataset.epoch = trainer.current_epoch


def mixing(rng, items):
    batch = default_collate(items)
    batch["x"] = batch["x"] * (1 + 0.1 * float(rng.random()))
    return batch


def closed_over():
    """Return a collate function with a generator that only it knows."""
    rng = np.random.default_rng(5)
    return lambda items: mixing(rng, items)


class Pausing(lightning_callbacks.EarlyStopping):
    """One of Lightning's, with a counter of the user's."""

    def __init__(self):
        super().__init__("train_loss_epoch", patience=9)
        self.num_calls = 0

    def on_train_batch_end(self, trainer, *args):
        self.num_calls += 1
        trainer.optimizers[0].param_groups[0]["lr"] = 0.05 / (1 + 0.1 * self.num_calls)


class Noisy(torch.optim.Optimizer):
    """An optimizer that counts and draws, and tells its ``state_dict`` nothing of it."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.05})
        self.num_steps, self.rng = 0, np.random.default_rng(1)

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        self.num_steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad * group["lr"] * self.rng.random() / self.num_steps**0.1)
        return loss


class Replaying(Net):
    def __init__(self):
        super().__init__()
        self.replay = collections.deque(maxlen=40)
        self.memories, self.pace, self.phase = [], Pace(), Phase.WARM_UP
        self.rngs = {"choice": [random.Random(2)]}

    def training_step(self, batch, batch_idx):
        for state, action in zip(batch["x"], batch["y"].tolist(), strict=True):
            self.replay.append(Transition(state, action))
        drawn = self.rngs["choice"][0].choices(self.replay, k=4)
        replayed = {
            "x": torch.stack([each.state for each in drawn]),
            "y": torch.tensor([each.action for each in drawn]),
        }
        loss = self.loss(batch) + self.loss(replayed)
        self.pace.num_steps += 1
        self.pace.mean = 0.9 * self.pace.mean + 0.1 * loss.item()
        self.phase = Phase.TRAINING if self.pace.num_steps > 12 else Phase.WARM_UP
        self.memories.append(Memory(loss.item(), batch["x"].mean()))
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        weight = 1.5 if self.phase is Phase.TRAINING else 1.0
        return {"loss": loss * weight + 0.01 * (self.pace.mean + sum(each.loss for each in self.memories))}

    def configure_optimizers(self):
        return Noisy(self.parameters())


@kind
def corners_in_workers(folder):
    data = DataLoader(Told(), 4, shuffle=True, collate_fn=closed_over(), num_workers=2)
    return Kind(callbacks=[Tells()], data={"train_dataloaders": data})


@kind
def corners(folder):
    collate = functools.partial(mixing, np.random.default_rng(6))
    data = DataLoader(Told(), 4, shuffle=True, collate_fn=collate)
    return Kind(Replaying(), [Tells(), Pausing()], data={"train_dataloaders": data})


class SkippingTheRest(Net):
    def on_train_batch_start(self, batch, batch_idx):
        return -1 if self.current_epoch == 1 and batch_idx == 6 else None


@kind
def skipping_the_rest(folder):
    return Kind(SkippingTheRest(), trainer={"max_epochs": 4, "val_check_interval": 4}, loggers=CSVLogger(folder))


class Splitting(Net):
    """Draws which samples it trains on each time that it is asked for a loader."""

    def train_dataloader(self):
        return DataLoader(random_split(Samples(60), [44, 16])[0], 4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(random_split(Samples(60), [44, 16])[1], 8)


@kind
def split_in_hooks(folder):
    return Kind(Splitting(), data={}, trainer={"reload_dataloaders_every_n_epochs": 1})


class Reweighting(Net):
    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.trainer.train_dataloader.sampler.weights[batch["id"]] = loss.item() + batch["y"].double()
        return {"loss": loss}


@kind
def reweighted(folder):
    data = DataLoader(Samples(), 4, sampler=WeightedRandomSampler(torch.ones(44), 44))
    return Kind(Reweighting(), data={"train_dataloaders": data})
