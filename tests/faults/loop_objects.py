"""Kinds of trainings, continued: what modules, metrics, callbacks and data modules hold.

See loop_kinds.py.
"""

import copy
import random

import lightning.pytorch as pl
import torch
import torchmetrics
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import CSVLogger
from loop_net import Kind, Net, kind, loader
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassPrecision

# -- metrics ---------------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """A submodule with a metric of its own."""

    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)


class Measured(Net):
    """Metrics wherever they can be: collected, nested, listed, wrapped, tracked."""

    def __init__(self):
        super().__init__()
        self.collected = torchmetrics.MetricCollection(
            {"acc": MulticlassAccuracy(3), "f1": MulticlassF1Score(3), "precision": MulticlassPrecision(3)}
        )
        self.quiet = torchmetrics.MetricCollection([MulticlassAccuracy(3), MulticlassPrecision(3)])
        self.nested = Counted()
        self.listed = [MulticlassAccuracy(3)]
        self.named = {"mean": torchmetrics.MeanMetric(), "inner": [torchmetrics.SumMetric()]}
        self.every = torchmetrics.CatMetric()
        self.extremes = torchmetrics.MinMaxMetric(torchmetrics.MeanMetric())
        self.tracker = torchmetrics.MetricTracker(MulticlassAccuracy(3))
        self.running = torchmetrics.RunningMean(4)
        self.mean = torchmetrics.MeanMetric()

    def on_train_epoch_start(self):
        self.tracker.increment()

    def training_step(self, batch, batch_idx):
        logits = self(batch["x"])
        loss = nn.functional.cross_entropy(logits, batch["y"])
        self.collected(logits, batch["y"])
        self.log_dict(self.collected, on_step=True, on_epoch=True)
        self.quiet.update(logits, batch["y"])
        for metric in (self.nested.accuracy, self.listed[0], self.tracker):
            metric.update(logits, batch["y"])
        self.log("nested", self.nested.accuracy, on_step=False, on_epoch=True)
        for metric in (*self.named["inner"], self.named["mean"], self.every, self.running):
            metric.update(loss.detach())
        self.extremes(loss.detach())
        self.log("running", self.running.compute())
        self.mean(loss.detach())
        self.log("mean", self.mean, on_step=True, on_epoch=True)
        self.log("largest", loss, on_step=True, on_epoch=True, reduce_fx=max)
        self.log("sum", loss, on_step=False, on_epoch=True, reduce_fx="sum")
        self.log("count", float(batch_idx), on_step=False, on_epoch=True, reduce_fx=torch.min)
        return {"loss": loss}

    def on_train_epoch_end(self):
        self.log("listed", self.listed[0].compute())
        self.log("named", self.named["mean"].compute() + self.named["inner"][0].compute())
        self.log("every", self.every.compute().sort().values[3])
        self.log("least", self.extremes.compute()["min"])
        self.log("best", self.tracker.best_metric())
        self.log_dict(self.quiet.compute())
        for metric in (self.listed[0], self.named["mean"], self.every, self.quiet):
            metric.reset()


class CallbackMetrics(pl.Callback):
    """Logs from a callback, with a metric that nobody registered."""

    def __init__(self):
        self.mean = torchmetrics.MeanMetric()
        self.history = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.mean.update(outputs["loss"].detach())
        module.log("by_callback", outputs["loss"] * 2, on_step=True, on_epoch=True, batch_size=4)

    def on_train_epoch_end(self, trainer, module):
        self.history.append(self.mean.compute().item())
        self.log("callback_mean", self.mean.compute())
        self.mean.reset()


@kind
def measured(folder):
    return Kind(Measured(), [CallbackMetrics()], {"val_check_interval": 6}, CSVLogger(folder))


# -- modules ---------------------------------------------------------------------------------------------------------


class Meter:
    """The average meter that every PyTorch program has."""

    def __init__(self):
        self.total, self.count, self.inner = 0.0, 0, {}

    def update(self, value):
        self.total += value
        self.count += 1
        self.inner[self.count % 3] = value


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature, self.seen = 1.0, []
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.register_buffer("later", None, persistent=False)
        self._bank = torch.zeros(3)

    def forward(self, x):
        if self.training:
            self.hidden.mul_(0.9).add_(x.detach().mean(0))
            self._bank = self._bank * 0.5 + self.hidden
            self.later = self.hidden * 2 if self.later is None else self.later + 1
            self.temperature *= 0.99
            self.seen.append(float(x.detach().sum()))
        later = 0.0 if self.later is None else self.later
        return x / self.temperature + 0.01 * self.hidden + 0.001 * self._bank + 0.0001 * later


class Remembering(Net):
    """State in every corner: buffers that don't persist, plain attributes of submodules, meters, hidden networks."""

    def __init__(self):
        super().__init__()
        self.gate, self.meter = Gate(), Meter()
        self.hidden_teacher = [copy.deepcopy(self.net).requires_grad_(False)]
        self._shuffle = random.Random(3)
        self.last = None
        self.strict_loading = True

    def forward(self, x):
        return self.gate(self.net(x))

    def training_step(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 4:
            self.net[0].requires_grad_(False)
            self.net[3].p = 0.5
            self.net[1].eval()
        loss = self.loss(batch) + 0.1 * self.hidden_teacher[0](batch["x"]).square().mean()
        self.meter.update(loss.item())
        if self.last is not None:
            loss = loss + 0.01 * self.last * self._shuffle.random() + 0.01 * self.meter.total / self.meter.count
        self.last = loss.detach()
        for slow, fast in zip(self.hidden_teacher[0].parameters(), self.net.parameters(), strict=True):
            slow.lerp_(fast.detach(), 0.1)
        self.log("train_loss", loss)
        return {"loss": loss}

    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = {"total": self.meter.total}

    def on_load_checkpoint(self, checkpoint):
        self.loaded = checkpoint["mine"]["total"] >= 0


@kind
def remembering(folder):
    return Kind(Remembering(), trainer={"val_check_interval": 4})


class Odd(Net):
    """Tied weights, spectral norms, other parametrizations, lazy and compiled modules."""

    def __init__(self):
        super().__init__()
        first = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 16))
        second = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
        tied = nn.Linear(16, 16)
        tied.bias = second.bias
        compiled = torch.compile(nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.1)), backend="eager")
        self.net = nn.Sequential(first, nn.ReLU(), second, tied, compiled, nn.LazyBatchNorm1d(), nn.LazyLinear(3))


@kind
def odd_modules(folder):
    return Kind(Odd())


class Configured(Net):
    """Makes its layers in configure_model, and loads what it made."""

    def configure_model(self):
        if not isinstance(self.net, nn.ModuleDict):
            self.net = nn.ModuleDict({"one": nn.Linear(8, 6), "two": nn.Linear(6, 3)})

    def forward(self, x):
        return self.net["two"](torch.dropout(self.net["one"](x), 0.2, self.training))


@kind
def configured_late(folder):
    return Kind(Configured())


# -- callbacks and data modules --------------------------------------------------------------------------------------


class Thawed(Net):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())

    def forward(self, x):
        return self.net(self.backbone(x))

    def configure_optimizers(self):
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trainable, lr=0.05, momentum=0.9)


class Stated(pl.Callback):
    """Has a state, and changes how training goes on by it."""

    def __init__(self):
        self.scale = 1.0

    def on_train_batch_end(self, trainer, module, *args):
        self.scale *= 0.99
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= self.scale

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


class Curriculum(pl.Callback):
    """Has none, and does so as well."""

    def __init__(self):
        self.epochs, self.meter = {}, Meter()

    def on_train_epoch_start(self, trainer, module):
        trainer.gradient_clip_val = 0.5 / (trainer.current_epoch + 1)
        self.epochs[trainer.current_epoch] = trainer.global_step

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.meter.update(1.0)
        for group in optimizer.param_groups:
            group["weight_decay"] = 1e-3 * self.meter.count * len(self.epochs)


@kind
def many_callbacks(folder):
    finetuning = lightning_callbacks.BackboneFinetuning(
        1, lambda epoch: 1.5, backbone_initial_ratio_lr=0.1, should_align=False
    )
    called = lightning_callbacks.LambdaCallback(on_train_epoch_end=lambda trainer, module: module.log("called", 1.0))
    stats = lightning_callbacks.LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)
    return Kind(Thawed(), [finetuning, called, stats, Stated(), Curriculum()], loggers=CSVLogger(folder))


class Data(pl.LightningDataModule):
    """Remembers by itself how far it is, and draws in its hooks."""

    def __init__(self):
        super().__init__()
        self.num_batches, self.difficulty = 0, 1.0

    def setup(self, stage):
        self.weight = 1.0 + len(stage)

    def train_dataloader(self):
        return loader(shuffle=True)

    def val_dataloader(self):
        return loader(22, batch_size=11)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training:
            self.num_batches += 1
            self.difficulty *= 1.01
            batch["x"] = batch["x"] * self.difficulty + torch.randn(8) / self.num_batches
        return batch

    def state_dict(self):
        return {"num_batches": self.num_batches}

    def load_state_dict(self, state):
        self.num_batches = state["num_batches"]


@kind
def data_module(folder):
    return Kind(data={"datamodule": Data()})
