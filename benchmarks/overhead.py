"""What does it cost a training to be saved in ``auto`` mode, stalls and slowed steps together?

    python benchmarks/overhead.py [--quick] [--json FILE] [--seconds 30] [--rounds 3] [--dir FOLDER]

Two trainings (an MLP with Adam): one with much state and long steps, one with little and short ones. Each in turn,
round by round: without any checkpoint; with
SpotCheckpoint in ``auto``, where nothing is known of interruptions; the same where ten attempts before were each
interrupted after a minute, so that the budget of 2 % is what bounds it, the dearest case; and with Lightning's
ModelCheckpoint at that same interval. Time counts from the start of training to the end of its last step, so the save
before the first batch is in it, and the one at the end, which each training makes once, is not.

Two ways of measuring. *whole run* compares the time of a fixed number of steps with that of the run without
checkpoints in the same round: nothing can hide, but the machine's own noise is in it, shown as ±; the goal is held
against it less that noise. *accounted* adds up the stalls and what steps beside a save took longer than the others of
the same run.
"""

import argparse
import logging
import shutil
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from common import Goal, Result, add_options, finish
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from spotproof.checkpoint.journal import read_events
from spotproof.events import AttemptStarted, CheckpointCommitted, IntervalTuned, Progress, event_file, to_line
from spotproof.lightning import SpotCheckpoint
from spotproof.storage import open_storage

BUDGET = 0.02
NUM_LAYERS, BATCH, COLD_STEPS = 5, 64, 3
WITHOUT, RARE, OFTEN, STOCK = (
    "no checkpoints",
    "SpotCheckpoint, auto",
    "SpotCheckpoint, auto, interrupted each minute",
    "ModelCheckpoint at the same interval",
)


class Model(pl.LightningModule):
    """As wide as the wanted size of parameters and Adam state asks for."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        width = int((megabytes * 2**20 / 4 / 3 / NUM_LAYERS) ** 0.5)
        self.layers = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(NUM_LAYERS)])
        self.width = width

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return some loss."""
        return self.layers(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), fused=True)


@dataclass
class Measure(Callback):
    """When steps began and ended, and whether a save was being written when they began."""

    spot: SpotCheckpoint | None
    began: float = 0.0
    ends: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    writing: list[bool] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the beginning of a step: the safe point, with its stall, lies before it."""
        writer = self.spot._checkpointer.writer if self.spot is not None else None
        self.writing.append(writer is not None and writer.is_busy)
        self.starts.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the end of a step."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Return the time of the whole training."""
        return self.ends[-1] - self.began

    @property
    def step_seconds(self) -> float:
        """Return the time from the end of a step to the end of the next."""
        return statistics.median(b - a for a, b in zip(self.ends, self.ends[1:], strict=False))

    @property
    def slowed_seconds(self) -> float:
        """Return what steps that began beside a save took longer, all together, than the others did on average."""
        steps = [end - start for start, end in zip(self.starts, self.ends, strict=True)]
        # The first ones are slow with or without a save.
        measured = list(zip(steps, self.writing, strict=True))[COLD_STEPS:]
        beside = [step for step, is_writing in measured if is_writing]
        others = [step for step, is_writing in measured if not is_writing]
        return sum(beside) - len(beside) * statistics.fmean(others) if beside and others else 0.0


@dataclass
class Run:
    """What one training took."""

    seconds: float
    step_seconds: float
    stall_seconds: float = 0.0
    slowed_seconds: float = 0.0
    num_saves: int = 0
    stall: float = 0.0
    durable: float = 0.0
    interval: float = 0.0
    reason: str = ""


def train(kind: str, megabytes: int, num_steps: int, folder: Path, interval_steps: int) -> Run:
    """Train *num_steps* steps."""
    pl.seed_everything(0, verbose=False)
    model = Model(megabytes)
    data = DataLoader(TensorDataset(torch.randn(BATCH * 50, model.width)), batch_size=BATCH, shuffle=True)
    spot = None
    callbacks: list[Callback] = []
    if kind in (RARE, OFTEN):
        if kind == OFTEN:
            pretend_interruptions(folder)
        spot = SpotCheckpoint(folder, overhead_budget=BUDGET)
        callbacks = [spot]
    elif kind == STOCK:
        callbacks = [ModelCheckpoint(folder, every_n_train_steps=interval_steps)]
    measure = Measure(spot)
    trainer = pl.Trainer(
        max_steps=num_steps,
        max_epochs=-1,
        callbacks=[measure, *callbacks],
        logger=False,
        enable_checkpointing=kind == STOCK,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, data)
    run = Run(measure.seconds, measure.step_seconds)
    if spot is None:
        return run
    events = read_events(open_storage(folder), 10 if kind == OFTEN else 0)
    saves = [event for event in events if isinstance(event, CheckpointCommitted) and event.step < num_steps]
    tuned = [event for event in events if isinstance(event, IntervalTuned)]
    run.num_saves = len(saves)
    run.stall_seconds = sum(save.stall_seconds for save in saves)
    run.slowed_seconds = measure.slowed_seconds
    run.stall = statistics.median(save.stall_seconds for save in saves)
    run.durable = statistics.median(save.durable_seconds for save in saves)
    run.interval = tuned[-1].seconds if tuned else 0.0
    run.reason = tuned[-1].reason if tuned else ""
    return run


def pretend_interruptions(folder: Path) -> None:
    """Leave what ten attempts leave that were killed after a minute each."""
    began = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for attempt in range(10):
        start = AttemptStarted(attempt=attempt, run_id="r", config={}, versions={}, at=began)
        last = Progress(attempt=attempt, step=1, epoch=0, at=began + timedelta(seconds=60))
        open_storage(folder).put(event_file(attempt), [(to_line(start) + to_line(last)).encode()])


@dataclass(frozen=True)
class Size:
    """One of the trainings."""

    megabytes: int
    """Parameters and Adam's state."""
    kinds: tuple[str, ...]


SIZES = (Size(252, (WITHOUT, RARE, OFTEN, STOCK)), Size(24, (WITHOUT, RARE, OFTEN)))


QUICK_SIZES = (Size(12, (WITHOUT, RARE, OFTEN, STOCK)),)


def measure(size: Size, seconds: float, rounds: int, root: Path) -> tuple[str, dict[str, list[Run]]]:
    """Return what was measured of, and the runs of each kind."""
    runs: dict[str, list[Run]] = {kind: [] for kind in size.kinds}
    step_seconds = train(WITHOUT, size.megabytes, 30, root, 0).step_seconds
    num_steps = max(50, round(seconds / step_seconds))
    interval_steps = num_steps
    for turn in range(rounds):
        for kind, measured in runs.items():
            folder = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
            try:
                measured.append(train(kind, size.megabytes, num_steps, folder, interval_steps))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            if kind == OFTEN and measured[-1].interval:
                interval_steps = max(1, round(measured[-1].interval / step_seconds))
        print(f"  {size.megabytes} MB: round {turn + 1} of {rounds}", flush=True)
    return f"{size.megabytes} MB and {num_steps} steps of {step_seconds * 1000:.0f} ms", runs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--seconds", type=float, help="about how long each training takes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=None, help="that training computes with; by default all")
    args = parser.parse_args()
    seconds = args.seconds or (3.0 if args.quick else 30.0)
    rounds = args.rounds or (1 if args.quick else 3)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    args.dir.mkdir(parents=True, exist_ok=True)
    measured = [(size, *measure(size, seconds, rounds, args.dir)) for size in (QUICK_SIZES if args.quick else SIZES)]
    result = Result(
        "overhead",
        "What auto mode costs a whole run",
        f"{' and '.join(what for _, what, _ in measured)}, {rounds} rounds, {torch.get_num_threads()} threads, "
        f"budget {100 * BUDGET:g} %",
        ["", "whole run", "accounted", "stalls", "slowed", "saves", "stall", "durable"],
        [],
        [],
        ["CheckFreq (FAST '21) allows itself 3.5 %, at intervals of its own choice."],
    )
    for size, _, runs in measured:
        summarize(size, runs, result)
    finish(result, args.json)


def summarize(size: Size, runs: dict[str, list[Run]], result: Result) -> None:
    """Add the rows of one training, its goals, and what auto mode said."""
    bare = [run.seconds for run in runs[WITHOUT]]
    noise = 100 * (max(bare) - min(bare)) / statistics.median(bare) / 2
    for kind, measured in runs.items():
        name = f"{size.megabytes} MB: {kind}"
        if kind == WITHOUT:
            result.rows.append([name, f"{statistics.median(bare):.1f} s ± {noise:.1f} %", *[""] * 6])
            continue
        whole = statistics.median(100 * (run.seconds / other - 1) for run, other in zip(measured, bare, strict=True))
        if kind == STOCK:
            result.rows.append([name, f"{whole:.1f} %", *[""] * 6])
            continue
        stalls = statistics.median(100 * run.stall_seconds / run.seconds for run in measured)
        slowed = statistics.median(100 * run.slowed_seconds / run.seconds for run in measured)
        both = statistics.median(100 * (run.stall_seconds + run.slowed_seconds) / run.seconds for run in measured)
        result.rows.append(
            [
                name,
                f"{whole:.1f} %",
                f"{both:.2f} %",
                f"{stalls:.2f} %",
                f"{slowed:.2f} %",
                f"{statistics.median(run.num_saves for run in measured):.0f}",
                f"{1000 * statistics.median(run.stall for run in measured):.0f} ms",
                f"{statistics.median(run.durable for run in measured):.2f} s",
            ]
        )
        which = "interrupted each minute" if kind == OFTEN else "no interruption seen"
        limit = 100 * BUDGET
        what = f"accounted, {size.megabytes} MB, {which}"
        result.goals.append(Goal(what=what, measured=both, limit=limit, unit="%", digits=1))
        result.goals.append(
            Goal(
                what=f"whole run less the noise of ±{noise:.1f} %, {size.megabytes} MB, {which}",
                measured=whole - noise,
                limit=limit,
                unit="%",
                digits=1,
            )
        )
        result.notes.append(f"{name}: {measured[-1].reason}")


if __name__ == "__main__":
    main()
