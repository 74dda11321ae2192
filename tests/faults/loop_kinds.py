"""Kinds of trainings: what Lightning's loops, optimizers, schedulers, callbacks and loggers can be asked to do.

Each is a function of the training's folder that returns a :class:`Kind`. ``KINDS`` names them all.
"""

from datetime import timedelta

import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from loop_net import Kind, Net, kind, loader
from torch import nn
from torch.optim import lr_scheduler

# -- weights that are averaged ---------------------------------------------------------------------------------------


@kind
def stochastic_average(folder):
    return Kind(callbacks=[lightning_callbacks.StochasticWeightAveraging(0.02, swa_epoch_start=1, annealing_epochs=2)])


class Normless(Net):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [lr_scheduler.StepLR(optimizer, 1, 0.5)]


@kind
def stochastic_average_without_norms(folder):
    average = lightning_callbacks.StochasticWeightAveraging(0.02, swa_epoch_start=0.3, annealing_strategy="linear")
    return Kind(Normless(), [average])


@kind
def moving_average(folder):
    average = lightning_callbacks.EMAWeightAveraging(decay=0.9, update_starting_at_step=4, update_every_n_steps=2)
    return Kind(callbacks=[average], trainer={"val_check_interval": 4})


# -- optimizers ------------------------------------------------------------------------------------------------------


class Adversaries(Net):
    """Two networks that learn from each other, optimized by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.judge = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        self.toggle_optimizer(first)
        loss = self.loss(batch) - 0.1 * self.judge(self(batch["x"])).mean()
        first.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(first, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
        first.step()
        self.untoggle_optimizer(first)
        if batch_idx % 3 != 2:
            self.toggle_optimizer(second)
            worth = self.judge(self(batch["x"]).detach()).square().mean()
            self.log_dict({"worth": worth, "loss": loss}, on_step=True, on_epoch=True)
            second.zero_grad()
            self.manual_backward(worth)
            second.step()
            self.untoggle_optimizer(second)
        one, other = self.lr_schedulers()
        one.step()
        if self.trainer.is_last_batch:
            other.step(loss.detach())
        return {"loss": loss}

    def configure_optimizers(self):
        first = torch.optim.Adam(self.net.parameters(), lr=0.01)
        second = torch.optim.SGD(self.judge.parameters(), lr=0.05, momentum=0.9)
        schedulers = [
            lr_scheduler.CosineAnnealingLR(first, 40),
            lr_scheduler.ReduceLROnPlateau(second, patience=0, factor=0.5),
        ]
        return [first, second], schedulers


@kind
def adversaries(folder):
    return Kind(Adversaries())


class Quasi(Net):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3, history_size=4)


@kind
def quasi_newton(folder):
    return Kind(Quasi(), every=9)


class ScaledByHand(Net):
    """Owns a gradient scaler that nobody registered."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=4)

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = self.loss(batch)
        self.manual_backward(self.scaler.scale(loss) / 2)
        if batch_idx % 2:
            self.scaler.step(optimizer)
            self.scaler.update()
            optimizer.zero_grad()
        self.log("scale", self.scaler.get_scale())
        return {"loss": loss}


@kind
def scaled_by_hand(folder):
    return Kind(ScaledByHand(), every=1)


@kind
def scaled_precision(folder):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=4)
    return Kind(trainer={"plugins": [MixedPrecision("16-mixed", "cpu", scaler)], "gradient_clip_val": 0.5})


@kind
def half_brain(folder):
    return Kind(trainer={"precision": "bf16-true", "gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"})


@kind
def accumulation_schedule(folder):
    schedule = lightning_callbacks.GradientAccumulationScheduler({0: 1, 1: 4, 2: 2})
    return Kind(callbacks=[schedule], every=1)


# -- learning rates --------------------------------------------------------------------------------------------------


class Scheduled(Net):
    def __init__(self, make, **config):
        super().__init__()
        self.make, self.config = make, config

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        scheduler = self.make(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **self.config}}


@kind
def warm_restarts(folder):
    return Kind(Scheduled(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2), interval="step", frequency=2))


@kind
def warm_up_then_cosine(folder):
    def make(optimizer):
        parts = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=7), lr_scheduler.CosineAnnealingLR(optimizer, 20)]
        return lr_scheduler.SequentialLR(optimizer, parts, [7])

    return Kind(Scheduled(make, interval="step"), trainer={"accumulate_grad_batches": 2}, every=1)


@kind
def plateau_by_steps(folder):
    module = Scheduled(
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5, mode="max"),
        **{"interval": "step", "frequency": 3, "monitor": "val_loss", "strict": False},
    )
    return Kind(module, trainer={"val_check_interval": 5})


@kind
def plateau_by_epochs(folder):
    module = Scheduled(
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5, mode="max"),
        **{"interval": "epoch", "frequency": 2, "monitor": "val_loss"},
    )
    return Kind(module, trainer={"max_epochs": 5})


class Searched(Net):
    """Takes its learning rate from a search, and a batch size as well."""

    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 1e-3, 2

    def train_dataloader(self):
        return loader(shuffle=True, batch_size=self.batch_size)

    def val_dataloader(self):
        return loader(22, batch_size=11)

    def training_step(self, batch, batch_idx):
        self.log("lr", self.lr * self.batch_size)
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, 5)]


@kind
def searched_rate(folder):
    finder = lightning_callbacks.LearningRateFinder(num_training_steps=12, early_stop_threshold=None)
    return Kind(Searched(), [finder], data={})


@kind
def searched_batch_size(folder):
    finder = lightning_callbacks.BatchSizeFinder(steps_per_trial=1, init_val=2, max_trials=1)
    return Kind(Searched(), [finder], data={})


# -- when it ends, when it validates ---------------------------------------------------------------------------------


@kind
def stopped_early(folder):
    stop = lightning_callbacks.EarlyStopping("val_loss", mode="max", patience=2, min_delta=0.01)
    return Kind(callbacks=[stop], trainer={"max_epochs": 9, "val_check_interval": 4, "min_epochs": 2})


@kind
def timed(folder):
    return Kind(callbacks=[lightning_callbacks.Timer(timedelta(seconds=27))], trainer={"min_epochs": 1})


@kind
def timed_by_the_trainer(folder):
    return Kind(trainer={"max_time": {"seconds": 20}, "max_epochs": -1})


@kind
def endless_but_for_steps(folder):
    return Kind(trainer={"max_epochs": -1, "max_steps": 29})


@kind
def limited(folder):
    return Kind(
        trainer={"limit_train_batches": 0.7, "limit_val_batches": 1, "num_sanity_val_steps": 1, "max_epochs": 4}
    )


@kind
def validated_beyond_epochs(folder):
    return Kind(trainer={"val_check_interval": 14, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0})


@kind
def validated_by_fractions(folder):
    return Kind(trainer={"val_check_interval": 0.3, "num_sanity_val_steps": -1})


@kind
def validated_by_the_clock(folder):
    return Kind(trainer={"val_check_interval": {"seconds": 7}, "check_val_every_n_epoch": None})


@kind
def overfitted(folder):
    return Kind(trainer={"overfit_batches": 4, "max_epochs": 6})


@kind
def several_validations(folder):
    module = Net()
    loaders = [loader(22, batch_size=11), loader(12, batch_size=4, shuffle=True)]
    monitor = lightning_callbacks.ModelCheckpoint(folder / "best", monitor="val_loss/dataloader_idx_1", save_top_k=2)
    data = {"train_dataloaders": loader(shuffle=True), "val_dataloaders": loaders}
    return Kind(module, [monitor], {"val_check_interval": 6}, data=data)


# -- files -----------------------------------------------------------------------------------------------------------


@kind
def best_and_last_files(folder):
    files = lightning_callbacks.ModelCheckpoint(
        folder / "best", "{epoch}-{val_loss:.2f}", "val_loss", save_top_k=2, save_last=True
    )
    return Kind(callbacks=[files], trainer={"val_check_interval": 4})


@kind
def files_by_steps(folder):
    best = lightning_callbacks.ModelCheckpoint(folder / "best", every_n_train_steps=2, save_last="link")
    every = lightning_callbacks.ModelCheckpoint(folder / "all", "at-{step}", every_n_train_steps=4, save_top_k=-1)
    same = lightning_callbacks.ModelCheckpoint(folder / "same", "fixed", every_n_train_steps=5, save_top_k=-1)
    return Kind(callbacks=[best, every, same], trainer={"accumulate_grad_batches": 2}, every=1)


@kind
def files_by_time_and_epochs(folder):
    timed = lightning_callbacks.ModelCheckpoint(
        folder / "timed", train_time_interval=timedelta(seconds=5), save_top_k=-1
    )
    at_ends = lightning_callbacks.ModelCheckpoint(
        folder / "ends", monitor="train_loss_epoch", save_on_train_epoch_end=True, every_n_epochs=2, save_last=True
    )
    return Kind(callbacks=[timed, at_ends], trainer={"max_epochs": 4})


@kind
def files_owed_to_validation(folder):
    owed = lightning_callbacks.ModelCheckpoint(
        folder / "owed", monitor="val_loss", every_n_train_steps=4, save_top_k=-1, save_last=True
    )
    return Kind(callbacks=[owed], trainer={"val_check_interval": 10})


@kind
def default_files_and_logs(folder):
    return Kind(
        callbacks=[lightning_callbacks.ModelCheckpoint()], loggers=CSVLogger(folder, flush_logs_every_n_steps=4)
    )


@kind
def rows(folder):
    class Logged(Net):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"width": 16})

        def training_step(self, batch, batch_idx):
            if self.global_step == 20:
                self.log("late", 1.5)
            return super().training_step(batch, batch_idx)

    loggers = [CSVLogger(folder / "rows"), CSVLogger(folder / "more", flush_logs_every_n_steps=1, version="mine")]
    monitor = lightning_callbacks.LearningRateMonitor()
    return Kind(Logged(), [monitor], {"log_every_n_steps": 2, "val_check_interval": 5}, loggers)
