"""A process that has imported torch and Lightning once, and forks a training for each line it reads.

Each training is a process of its own and its kill a real SIGKILL; only the seconds of importing are saved. Reads one
JSON request a line, answers with one JSON line: ``{"exit": code or -signal, "seconds": s}``.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import data_kinds
import lightning.pytorch as pl
import loop_training
import numpy as np
import torch
import torchmetrics
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, WeightedRandomSampler

from spotproof.lightning import SpotCheckpoint

NUM_SAMPLES = 44


class Samples(Dataset):
    """Vectors with random augmentation from the three global generators and one of its own."""

    def __init__(self):
        self.rng = np.random.default_rng(4)
        self.fetched = 0

    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        self.fetched += 1
        kill_if("fetch", self.fetched)
        base = torch.sin(torch.arange(8.0) * (index + 1))
        noise = torch.randn(8) * 0.1 + np.random.rand() * 0.1 + random.random() * 0.1 + self.rng.random() * 0.1
        return {"id": index, "x": base + noise, "y": index % 3}


class Starting(BatchSampler):
    """Is where a loader starts to read."""

    def __iter__(self):
        kill_if("iter", 10**9)
        return super().__iter__()


class Stream(IterableDataset):
    """The same samples, one after another, with no position that could be saved."""

    def __iter__(self):
        samples = Samples()
        return (samples[index] for index in range(NUM_SAMPLES))


class Opaque:
    """An object that no checkpoint can hold safely."""


class Model(pl.LightningModule):
    def __init__(self, scenario, trace):
        super().__init__()
        self.scenario, self.trace = scenario, trace
        self.automatic_optimization = not scenario.get("manual", False)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        self.counted, self.outputs, self.noise = 0, [], np.random.default_rng(9)
        self.save_hyperparameters({"criterion": Opaque(), "width": 16})
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=3)
        self.val_loss_mean = torchmetrics.MeanMetric()

    def training_step(self, batch, batch_idx):
        if self.scenario.get("manual"):
            return self.manual_step(batch, batch_idx)
        return self.loss_of(batch, batch_idx)

    def manual_step(self, batch, batch_idx):
        """Optimize by hand, with gradients that wait for a second batch."""
        loss = self.loss_of(batch, batch_idx)
        self.manual_backward(loss / 2)
        if batch_idx % 2:
            optimizer = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()

    def loss_of(self, batch, batch_idx):
        if isinstance(batch, dict) and "a" in batch:
            batch, other = batch["a"], batch["b"]
            self.log("other", other["x"].mean() if other is not None else torch.zeros(()), on_epoch=True, batch_size=4)
        kill_if("training_step", self.global_step)
        if self.global_step == self.scenario.get("waits_at"):
            wait_for_go()
        if self.scenario.get("words"):
            # At a step of the user's own, and of kinds that TensorBoard's reader does not purge.
            board = self.logger.experiment
            board.add_scalar("own count", self.global_step, self.current_epoch)
            board.add_text("words", f"step {self.global_step}", self.global_step)
            board.add_scalars("pair", {"a": loss_so_far(self), "b": 1.0}, self.global_step)
        logits = self.net(batch["x"])
        loss = nn.functional.cross_entropy(logits, batch["y"])
        self.accuracy(logits, batch["y"])
        self.log("train_acc", self.accuracy, on_step=False, on_epoch=True)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("worst", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.counted += 1
        self.outputs.append(loss.detach() + self.noise.random())
        self.trace("batch", self.current_epoch, batch_idx, batch["id"].tolist(), loss.item().hex())
        return loss

    def setup(self, stage):
        kill_if("setup", 10**9)

    def validation_step(self, batch, batch_idx):
        if self.trainer.sanity_checking:
            kill_if("sanity_check", 10**9)
        kill_if("validation_step", self.global_step)
        loss = nn.functional.cross_entropy(self.net(batch["x"]), batch["y"])
        self.log("val_loss", loss)
        if not self.trainer.sanity_checking:
            self.trace("val", self.current_epoch, self.global_step, batch_idx, loss.item().hex())

    def on_train_epoch_end(self):
        self.log("own_mean", torch.stack(self.outputs).mean() + self.counted)
        self.outputs.clear()
        metrics = {k: v.item().hex() for k, v in sorted(self.trainer.callback_metrics.items())}
        self.trace("epoch", self.current_epoch, metrics)

    def on_save_checkpoint(self, checkpoint):
        if self.scenario.get("unsafe") or self.global_step >= self.scenario.get("unsafe_from", 10**9):
            checkpoint["mine"] = Opaque()

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        kind = self.scenario.get("scheduler")
        if kind == "onecycle":
            steps = self.trainer.estimated_stepping_batches
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=int(steps))
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        if kind == "plateau":
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, factor=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "train_loss_epoch"}}
        if kind == "step":
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]
        return optimizer


_kill = {}
_wait_in = {}
_trainer_pid = 0


def kill_if(point, step):
    """Send this process the signal that the request asked for here: SIGKILL unless it says otherwise."""
    if _kill.get("point") == point and step >= _kill["step"]:
        signum, hangs = _kill.get("signal", signal.SIGKILL), _kill.get("hangs")
        if "batches" in _kill:  # a loader worker waits until the training has nothing left to do but to wait for it
            trace = Path(_kill["folder"], "trace.jsonl")
            while not trace.exists() or trace.read_text().count('["batch"') < _kill["batches"]:
                time.sleep(0.01)
            time.sleep(0.2)
        if signum != signal.SIGKILL:
            _kill.clear()  # once
        os.kill(_trainer_pid, signum)
        while hangs:  # what would never come back by itself
            time.sleep(0.01)


def loss_so_far(model):
    """Return something that depends on the steps before."""
    return float(model.counted)


def wait_for_go():
    """Stand still until the test says so."""
    folder = Path(_wait_in["folder"])
    (folder / "waits").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)


class Ledger(pl.Callback):
    """A user's callback without a state_dict."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append(batch_idx)

    def on_train_epoch_end(self, trainer, module):
        module.trace("epoch", f"ledger {trainer.current_epoch}", self.seen)


class Killer(pl.Callback):
    """Kills where it is asked to. Before each batch it lets a save under way finish, so that what a kill finds on the
    disk does not depend on the machine's load; kills in the middle of a write have tests of their own."""

    def __init__(self, spot, *, settle):
        self.spot, self.settle = spot, settle

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.settle:
            self.spot._checkpointer.wait()
        kill_if("on_train_batch_start", trainer.global_step)

    def on_train_batch_end(self, trainer, module, *args):
        kill_if("on_train_batch_end", trainer.global_step)

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            kill_if("on_validation_end", trainer.global_step)

    def on_train_epoch_end(self, trainer, module):
        kill_if("on_train_epoch_end", trainer.global_step)

    def on_train_epoch_start(self, trainer, module):
        kill_if("on_train_epoch_start", trainer.global_step)

    def on_train_end(self, trainer, module):
        kill_if("on_train_end", trainer.global_step)

    def on_load_checkpoint(self, trainer, module, checkpoint):
        kill_if("on_load_checkpoint", 10**9)


def loaders(scenario):
    workers = scenario.get("workers", 0)
    options = {"num_workers": workers, "persistent_workers": bool(workers) and scenario.get("persistent", False)}
    data = Samples()
    if scenario.get("data"):
        train_loader = data_kinds.make(
            scenario["data"],
            workers=workers,
            persistent=options["persistent_workers"],
            start_method=scenario.get("start_method"),
        )
        val_options = {"num_workers": workers, "persistent_workers": options["persistent_workers"]}
        return train_loader, DataLoader(data_kinds.Samples(), batch_size=11, **val_options)
    if scenario.get("iterable"):
        return DataLoader(Stream(), batch_size=4), DataLoader(data, batch_size=11)
    if scenario.get("sampler") == "weighted":
        options["sampler"] = WeightedRandomSampler([1.0 + i % 2 for i in range(NUM_SAMPLES)], NUM_SAMPLES)
    else:
        options["shuffle"] = True
    if scenario.get("sampler") == "starting":
        train_loader = DataLoader(data, batch_sampler=Starting(RandomSampler(data), 4, drop_last=False))
    else:
        train_loader = DataLoader(data, batch_size=4, **options)
    if scenario.get("combined"):
        other = DataLoader(Samples(), batch_size=7, shuffle=True)
        train_loader = CombinedLoader({"a": train_loader, "b": other}, scenario["combined"])
    return train_loader, DataLoader(data, batch_size=11, num_workers=scenario.get("val_workers", 0))


def extra_callbacks(scenario, folder):
    """Return the callbacks that a scenario names."""
    makers = {
        "early stopping": lambda: EarlyStopping("train_loss_epoch", mode="max", patience=1),
        "best and last": lambda: ModelCheckpoint(
            folder / "best", "{epoch}-{step}", "val_loss", save_top_k=2, enable_version_counter=False
        ),
        "every fifth step": lambda: ModelCheckpoint(folder / "best", every_n_train_steps=5, save_top_k=1),
        "learning rates": LearningRateMonitor,
        "moving average": lambda: EMAWeightAveraging(decay=0.9),
        "stochastic average": lambda: StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1),
    }
    return [makers[name]() for name in scenario.get("callbacks", [])]


def train(request):
    global _trainer_pid
    _trainer_pid = os.getpid()  # loader workers send their kills there, too
    os.environ.update(request.get("env") or {})
    tempfile.tempdir = None  # asked for before the fork
    scenario, folder = request["scenario"], Path(request["folder"])
    (folder / "pid").write_text(str(os.getpid()))
    _wait_in["folder"] = str(folder)
    if request.get("kill"):
        _kill.update(request["kill"], folder=str(folder))
    if "loop" in scenario:
        loop_training.train(request, kill_if, Killer)
        return

    def trace(*entry):
        with open(folder / "trace.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")

    pl.seed_everything(scenario.get("seed", 7), verbose=False)
    model = Model(scenario, trace)
    spot = SpotCheckpoint(
        request.get("dirpath") or folder / "checkpoints",
        every_n_steps=scenario.get("every", 3),
        every_n_seconds=None,
        **request.get("spot") or {},
    )
    faults = []
    if request.get("fault"):
        import faulty_machine

        faults = faulty_machine.install(folder, spot, **request["fault"])
    if request.get("mutate") == "order":  # resume without the position in the data
        from spotproof.checkpoint.resumable import ResumableDataLoader

        ResumableDataLoader.load_state_dict = lambda self, state: None
    if request.get("mutate") == "rng":
        from spotproof.checkpoint.rng import RngState

        RngState.load_state_dict = lambda self, state: None
    if request.get("mutate") == "attributes":
        from spotproof.lightning._attributes import ChangedAttributes

        ChangedAttributes.load_state_dict = lambda self, state: None
    if request.get("mutate") == "metrics":
        import spotproof.lightning._private as private

        private.restore_run_state = lambda trainer, state: None
    train_loader, val_loader = loaders(scenario)
    logs = request.get("logs") or folder / "logs"
    logger = TensorBoardLogger(logs, name="run") if scenario.get("tensorboard") else False
    callbacks = [Ledger(), *extra_callbacks(scenario, folder)]
    if request.get("mutate") != "no_callback":
        callbacks = [Killer(spot, settle=request.get("settle", True)), *callbacks, spot, *faults]
    trainer = pl.Trainer(
        max_epochs=scenario.get("epochs", 3),
        accelerator="cpu",
        callbacks=callbacks,
        logger=logger,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing={"best and last", "every fifth step"} & set(scenario.get("callbacks", [])) != set(),
        accumulate_grad_batches=scenario.get("accumulate", 1),
        val_check_interval=scenario.get("val_check_interval", 1.0),
        default_root_dir=folder,
        deterministic=True,
        **scenario.get("trainer", {}),
    )
    ckpt_path = None if request.get("mutate") in ("no_callback", "no_ckpt_path") else spot.latest()
    options = {}
    if request.get("mutate") == "lightning_ckpt":
        ckpt_path = next((folder / "best").iterdir())
        options["weights_only"] = False  # this one holds an Opaque
    trainer.fit(model, train_loader, val_loader, ckpt_path=ckpt_path, **options)
    state = {"model": model.state_dict(), "optimizer": trainer.optimizers[0].state_dict(), "rng": torch.rand(4)}
    if isinstance(trainer.checkpoint_callback, ModelCheckpoint):
        best = trainer.checkpoint_callback.best_k_models
        state["best"] = {Path(path).name: score for path, score in sorted(best.items())}
        state["files"] = sorted(path.name for path in (folder / "best").iterdir())
    torch.save(state, folder / "final.pt")


def wait_for(pid, kill_after):
    """Wait for the training, or kill it after a time, whatever it does then."""
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def main():
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                log = os.open(Path(request["folder"], "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                train(request)
                code = 0
            except SystemExit as err:
                code = err.code if isinstance(err.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        status = wait_for(pid, request.get("kill_after"))
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        print(json.dumps({"exit": code, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
