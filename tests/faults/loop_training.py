"""Trainings of every kind that Lightning's loops, callbacks and loggers make, for the zygote to be killed in.

What is trained is in loop_kinds.py and loop_objects.py. Everything that such a training leaves is compared: each batch,
validation and epoch, the final state of everything that has one, ModelCheckpoint's files with their content, and the
loggers' rows.
"""

import json
import random
import types
from pathlib import Path

import lightning.pytorch as pl
import lightning.pytorch.callbacks.model_checkpoint
import lightning.pytorch.callbacks.timer
import lightning.pytorch.loops.evaluation_loop
import lightning.pytorch.loops.fit_loop
import lightning.pytorch.loops.training_epoch_loop
import loop_corners  # noqa: F401 registers its kinds
import loop_kinds  # noqa: F401 the same
import loop_objects  # noqa: F401 the same
import loop_stock  # noqa: F401 the same
import loop_told  # noqa: F401 the same
import numpy as np
import torch
from lightning.pytorch.trainer.states import RunningStage
from loop_net import KINDS

from spotproof.lightning import SpotCheckpoint


class Clock:
    """A clock for Lightning that goes by one second a batch, and starts anywhere in each process, as clocks do."""

    def __init__(self):
        self.now = random.SystemRandom().uniform(0, 1e6)
        shim = types.SimpleNamespace(monotonic=lambda: self.now)
        for module in (
            lightning.pytorch.callbacks.timer,
            lightning.pytorch.callbacks.model_checkpoint,
            lightning.pytorch.loops.evaluation_loop,
            lightning.pytorch.loops.fit_loop,
            lightning.pytorch.loops.training_epoch_loop,
        ):
            module.time = shim

    def tick(self):
        self.now += 1


class Tracer(pl.Callback):
    """Writes down what happens, and kills where it is asked to, by the number of batches over all epochs."""

    def __init__(self, folder, kill_if, clock):
        self._path, self._kill_if, self._tick = folder / "trace.jsonl", kill_if, clock.tick

    def trace(self, *entry):
        with open(self._path, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self._kill_if("batch_start", trainer.fit_loop.total_batch_idx)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._tick()
        total = trainer.fit_loop.total_batch_idx
        loss = outputs["loss"].item().hex() if isinstance(outputs, dict) else None
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        happened = [batch["id"].tolist(), loss, rates, trainer.global_step, trainer.accumulate_grad_batches]
        self.trace("batch", trainer.current_epoch, f"{total} {batch_idx}", *happened)
        self._kill_if("batch_end", total)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            total = trainer.fit_loop.total_batch_idx
            self.trace(
                "val", trainer.current_epoch, total, f"{dataloader_idx} {batch_idx}", outputs["loss"].item().hex()
            )
            self._kill_if("validation", total)

    def on_validation_end(self, trainer, module):
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            total = trainer.fit_loop.total_batch_idx
            self.trace("epoch", f"validation {trainer.current_epoch} {total}", metrics(trainer))

    def on_train_epoch_end(self, trainer, module):
        self.trace("epoch", f"training {trainer.current_epoch}", metrics(trainer))
        self._kill_if("epoch_end", trainer.fit_loop.total_batch_idx)

    def on_train_epoch_start(self, trainer, module):
        self._kill_if("epoch_start", trainer.fit_loop.total_batch_idx)

    def on_test_start(self, trainer, module):
        self._kill_if("test", 10**9)

    def on_train_end(self, trainer, module):
        self._kill_if("train_end", 10**9)

    def on_load_checkpoint(self, trainer, module, checkpoint):
        self._kill_if("load", 10**9)


def metrics(trainer):
    return {name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())}


def plain(state, folder):
    """Return *state* with everything but tensors as text, and without the name of the folder it is in."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {str(key).replace(str(folder), "…"): plain(value, folder) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [plain(item, folder) for item in state]
    return repr(state).replace(str(folder), "…")


def state_of(callback):
    """Return the state of *callback*, without the times of a Timer that decide nothing: Lightning counts them anew in
    each process."""
    state = callback.state_dict()
    if isinstance(callback, lightning.pytorch.callbacks.Timer):
        return {"time_elapsed": state["time_elapsed"][RunningStage.TRAINING.value]}
    return state


def outcome(trainer, module, folder):
    """Return everything that a training left."""
    compared = [
        callback
        for callback in trainer.callbacks
        if not isinstance(callback, (SpotCheckpoint, Tracer)) and type(callback).__name__ != "Killer"
    ]
    callbacks = {f"{index} {type(each).__qualname__}": state_of(each) for index, each in enumerate(compared)}
    return {
        "module": module.state_dict(),
        "buffers": dict(module.named_buffers()),
        "frozen": [name for name, parameter in module.named_parameters() if not parameter.requires_grad],
        "training": [name for name, part in module.named_modules() if part.training],
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "precision": trainer.precision_plugin.state_dict(),
        "callbacks": callbacks,
        "metrics": dict(trainer.callback_metrics),
        "logged": dict(trainer.logged_metrics),
        "rng": [torch.rand(4), np.random.rand(), random.random()],
        "progress": [trainer.current_epoch, trainer.global_step, trainer.fit_loop.total_batch_idx],
        "files": {
            str(path.relative_to(folder)): torch.load(path, weights_only=False)
            for path in sorted(folder.rglob("*.ckpt"))
        },
        "links": {
            str(path.relative_to(folder)): path.resolve() for path in folder.rglob("*.ckpt") if path.is_symlink()
        },
        "rows": {
            str(path.relative_to(folder)): path.read_text()
            for name in ("metrics.csv", "hparams.yaml")
            for path in sorted(folder.rglob(name))
        },
    }


def train(request, kill_if, killer):
    """Train what the request's scenario names; the last thing that is done is to write the outcome down."""
    scenario, folder = request["scenario"], Path(request["folder"])
    clock = Clock()
    pl.seed_everything(5, verbose=False)
    kind = KINDS[scenario["loop"]](folder)
    every = scenario.get("every", kind.every)
    spot = SpotCheckpoint(folder / "checkpoints", every_n_steps=every, every_n_seconds=None)
    is_spot, is_stock = not request.get("mutate"), request.get("mutate") == "stock"
    if is_stock:
        options = {"every_n_train_steps": every, "save_last": True, **kind.stock}
        kind.callbacks.append(pl.callbacks.ModelCheckpoint(folder / "stock", **options))
    tracer = Tracer(folder, kill_if, clock)

    def trainer_of(**options):
        return pl.Trainer(
            **{
                "max_epochs": 3,
                "accelerator": "cpu",
                "callbacks": [tracer, *([killer(spot, settle=True)] if is_spot else ()), *kind.callbacks]
                + ([spot] if is_spot else []),
                "logger": kind.loggers,
                "log_every_n_steps": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "enable_checkpointing": any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in kind.callbacks),
                "default_root_dir": folder,
                "deterministic": True,
                **kind.trainer,
                **options,
            }
        )

    trainer = trainer_of()
    newest = spot.latest() if is_spot else "last" if is_stock else None
    trainer.fit(kind.module, **kind.data, ckpt_path=newest, weights_only=False if is_stock else None)
    left = {}
    if kind.afterwards is not None:
        left = kind.afterwards(trainer, kind, trainer_of, kill_if)
    left.update(outcome(trainer, kind.module, folder))
    torch.save(plain(left, folder), folder / "final.pt")
