"""Trainings of several ranks that the tests in test_ranks*.py kill: a loop of one's own, and a Lightning training."""

import json
import os
import random
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
import torchmetrics
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from spotproof.checkpoint import resumable_loader
from spotproof.lightning import SpotCheckpoint
from spotproof.loop import SpotLoop

NUM_EPOCHS = 2
NUM_BATCHES = 6
"""Of an epoch, on each rank."""


class Samples(Dataset):
    """Drawn anew each time, so that random numbers out of place are seen."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        base = torch.sin(torch.arange(8.0) * (index + 1))
        noise = torch.randn(8) * 0.1 + np.random.rand() * 0.1 + random.random() * 0.1
        return {"id": index, "x": base + noise, "y": index % 3}


def network():
    return nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 3))


class Trace:
    """What each step of this rank saw and found; what is computed again is told again."""

    def __init__(self, folder, rank, on_step):
        self._path = Path(folder, f"trace-{rank}.jsonl")
        self._on_step = on_step

    def tell(self, name, *values):
        with self._path.open("a") as file:
            file.write(json.dumps([name, *values]) + "\n")
        self._on_step(name)


class Counters:
    def __init__(self):
        self.epoch, self.seen = 0, 0

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        vars(self).update(state)


def loop(rank, world, request, on_step):
    """A loop of one's own, with per-rank data, random numbers and buffers."""
    dist.init_process_group("gloo", init_method=f"file://{request['meeting']}", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = DistributedDataParallel(network(), broadcast_buffers=False)  # every rank keeps averages of its own
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(100 + rank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = Samples(4 * NUM_BATCHES * world)
    sampler = DistributedSampler(data, world, rank, shuffle=True, seed=3)
    loader = resumable_loader(
        DataLoader(data, batch_size=4, sampler=sampler, num_workers=request.get("num_workers", 0))
    )
    counters, trace = Counters(), Trace(request["folder"], rank, on_step)
    settings = {"every_n_steps": 3, "every_n_seconds": None, **request.get("spot", {})}
    with SpotLoop(request["places"][rank], **settings) as spot:
        parts = {"model": model, "optimizer": optimizer, "loader": loader, "counters": counters}
        for name, part in parts.items():
            spot.register(name, part)
        step = spot.begin()
        trace.tell(f"from {step}")
        while counters.epoch < NUM_EPOCHS:
            sampler.set_epoch(counters.epoch)
            for batch in loader:
                loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                counters.seen += len(batch["id"]) + rank
                step += 1
                trace.tell(f"step {step}", batch["id"].tolist(), loss.item(), counters.seen)
                spot.step_done(step, epoch=counters.epoch)
            counters.epoch += 1
    trace.tell("end", step)


class Net(pl.LightningModule):
    """Shuffled data, dropout, batch norm of each rank's own, a metric of each rank's own, accumulation, validation."""

    def __init__(self, trace):
        super().__init__()
        self.net = network()
        self.accuracy = torchmetrics.MeanMetric(sync_on_compute=False)
        self.trace = [trace]  # no state of the training
        self.own = nn.Parameter(torch.zeros(2), requires_grad=False)  # DDP gives every rank rank 0's, but only once

    def training_step(self, batch, batch_idx):
        outputs = self.net(batch["x"])
        loss = nn.functional.cross_entropy(outputs, batch["y"])
        self.own += loss.detach()
        self.accuracy.update((outputs.argmax(1) == batch["y"]).float())
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        self.trace[0].tell(f"step {self.current_epoch} {batch_idx}", batch["id"].tolist(), loss.item())
        return loss

    def on_train_epoch_end(self):
        self.trace[0].tell(f"epoch {self.current_epoch}", self.accuracy.compute().item(), self.own.tolist())
        self.accuracy.reset()

    def validation_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch["x"]), batch["y"])
        self.log("val_loss", loss, sync_dist=True)
        self.trace[0].tell(f"val {self.global_step} {batch_idx}", batch["id"].tolist(), loss.item())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def lightning(rank, world, request, on_step):
    """A Lightning training of one process a host; Lightning shares the data out."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(request["port"]),
        NODE_RANK=str(rank),
        LOCAL_RANK="0",
        WORLD_SIZE=str(world),
    )
    pl.seed_everything(5, verbose=False)
    trace = Trace(request["folder"], rank, on_step)
    spot = SpotCheckpoint(
        request["places"][rank], **{"every_n_steps": 2, "every_n_seconds": None, **request.get("spot", {})}
    )
    strategy = pl.strategies.DDPStrategy(broadcast_buffers=request.get("broadcast_buffers", False))
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        num_nodes=world,
        strategy=strategy,
        max_epochs=NUM_EPOCHS,
        accumulate_grad_batches=2,
        val_check_interval=4,
        callbacks=[spot],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Net(trace)
    torch.manual_seed(100 + rank)
    np.random.seed(100 + rank)
    random.seed(100 + rank)
    workers = request.get("num_workers", 0)
    train = DataLoader(Samples(4 * NUM_BATCHES * world), batch_size=4, shuffle=True, num_workers=workers)
    val = DataLoader(Samples(8 * world), batch_size=4)
    path = spot.latest()
    trace.tell(f"from {path}")
    trainer.fit(model, train, val, ckpt_path=path)
    trace.tell("end", trainer.global_step)
