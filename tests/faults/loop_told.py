"""Kinds of trainings in which something can't come back as it was, and scripts that do more than one ``fit``."""

import itertools

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import Logger
from loop_net import Kind, Net, kind, loader
from torch import nn

from spotproof.lightning import SpotCheckpoint


class Elsewhere(Logger):
    """Sends metrics to a service, say."""

    name, version = "elsewhere", 0

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass


@kind
def logged_elsewhere(folder):
    return Kind(loggers=[Elsewhere(), CSVLogger(folder)], trainer={"max_epochs": 1})


class PastLightning(Net):
    """Steps an optimizer that Lightning does not see."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        loss = self.loss(batch)
        self.manual_backward(loss)
        optimizer.step()
        return {"loss": loss}


@kind
def steps_past_lightning(folder):
    return Kind(PastLightning(), trainer={"max_epochs": 5})


class Growing(Net):
    """Makes a layer when training has begun."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.extra = nn.Linear(3, 3)


@kind
def grown_late(folder):
    return Kind(Growing())


class Unsaved(Net):
    """Holds what is not for a checkpoint."""

    def __init__(self):
        super().__init__()
        self.schedule, self.seen, self.losses = itertools.cycle([1.0, 2.0]), [], []

    def training_step(self, batch, batch_idx):
        self.seen.append(object())
        self.losses.append(1.0)
        return {"loss": self.loss(batch) * next(self.schedule)}


@kind
def unsaved_attributes(folder):
    return Kind(Unsaved(), trainer={"max_epochs": 1})


@kind
def tested_afterwards(folder):
    best = lightning_callbacks.ModelCheckpoint(folder / "best", monitor="val_loss")

    def test(trainer, kind, trainer_of, kill_if):
        validated = trainer.validate(kind.module, loader(12), verbose=False)
        tested = trainer.test(kind.module, loader(12), ckpt_path="best", weights_only=False, verbose=False)
        return {"validated": validated, "tested": tested}

    return Kind(callbacks=[best], loggers=CSVLogger(folder), afterwards=test)


class KillsInTheSecond(pl.Callback):
    def __init__(self, kill_if, spot):
        self._kill_if, self._spot = kill_if, spot

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self._spot._checkpointer.wait()  # so that what a kill finds on the disk does not depend on the machine's load

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._kill_if("second", trainer.fit_loop.total_batch_idx)


@kind
def trained_twice(folder):
    def train_again(trainer, kind, trainer_of, kill_if):
        spot = SpotCheckpoint(folder / "second", every_n_steps=3, every_n_seconds=None)
        again = trainer_of(callbacks=[KillsInTheSecond(kill_if, spot), spot], logger=False, max_epochs=2)
        again.fit(kind.module, loader(shuffle=True), loader(22, batch_size=11), ckpt_path=spot.latest())
        return {"again": again.optimizers[0].state_dict(), "drawn": torch.rand(3)}

    return Kind(afterwards=train_again)
