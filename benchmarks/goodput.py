"""Goodput under SIGKILLs: which share of the time does the training get ahead? Four schemes on the same kills.

    python benchmarks/goodput.py [--quick] [--full] [--json FILE] [--seed 1] [--dir FOLDER]

Uptimes are drawn from an exponential distribution with a mean of 60 s, the same for each scheme; after each a SIGKILL,
at once the next start. A step waits, as the host does while an accelerator computes, so that the schemes can run side
by side without taking the processor from each other; the state is a model's and its momentum's. Goodput is the training
time of the steps that a last start finds done, by the time that all attempts took.

ideal      no stall, nothing lost: each uptime less what that very start-up of Spotproof's took
spotproof  SpotCheckpoint(), which is every_n_seconds="auto"
steps      Lightning's ModelCheckpoint(every_n_train_steps=N), with the N that Young's formula gives who knows the mean
           uptime and what Lightning's own save takes
epoch      Lightning's ModelCheckpoint once an epoch, as in "Fault-tolerant model training on spot instances" (2022)

By default 8 kills; with --full 20; with --quick 4, all times a third, which the start-ups and the shortest interval are
not: it says little.
"""

import argparse
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import Goal, Result, add_options, finish

STEP_SECONDS = 0.05
SCHEMES = ("spotproof", "steps", "epoch")
BARE = "bare"
"""No checkpoints: tells how long a step really takes."""


def train(scheme: str, megabytes: int, epoch_seconds: float, every: int, folder: Path) -> None:
    """Train until killed, and print each step."""
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size = int((megabytes * 2**20 / 4 / 3 / 4) ** 0.5)

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(size, size, bias=False) for _ in range(4))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            print(f"step {self.global_step}", flush=True)
            time.sleep(STEP_SECONDS)
            return sum((layer.weight[:8] * batch[0]).square().mean() for layer in self.layers)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)

    pl.seed_everything(0, verbose=False)
    callback: pl.Callback
    ckpt_path: str | None
    if scheme == "spotproof":
        from spotproof.lightning import SpotCheckpoint

        callback = spot = SpotCheckpoint(folder)
        ckpt_path = spot.latest()
    elif scheme == BARE:
        callback, ckpt_path = pl.Callback(), None
    else:
        options: dict[str, Any] = {"every_n_epochs": 1} if scheme == "epoch" else {"every_n_train_steps": every}
        # As a careful user: two files, so that a torn one is not the end.
        callback = ModelCheckpoint(folder, "{step}", monitor="step", mode="max", save_top_k=2, **options)
        files = sorted(folder.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
        ckpt_path = None
        for path in reversed(files):
            try:
                torch.load(path, weights_only=True, mmap=True)
            except Exception:  # torn
                continue
            ckpt_path = str(path)
            break
    trainer = pl.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    data = DataLoader(TensorDataset(torch.randn(round(epoch_seconds / STEP_SECONDS), size)), batch_size=1, shuffle=True)
    trainer.fit(Model(), data, ckpt_path=ckpt_path)


@dataclass
class Run:
    """What happened to one scheme."""

    scheme: str
    epoch_seconds: float
    started: list[int] = field(default_factory=list)
    """First step of each attempt."""
    reached: list[int] = field(default_factory=list)
    """Last step of each attempt."""
    step_seconds: list[float | None] = field(default_factory=list)
    """Mean time of a step in each attempt; None where there were none."""
    startup: list[float] = field(default_factory=list)
    """Seconds to the first step of each attempt; its whole uptime if it had none."""
    uptimes: list[float] = field(default_factory=list)
    """Seconds from start to kill."""

    @property
    def useful_steps(self) -> int:
        """Return the step that the last start went on from."""
        return self.started[-1]

    @property
    def lost_steps(self) -> int:
        """Return the steps that were done and had to be done again."""
        pairs = zip(self.reached[:-1], self.started[1:], strict=True)
        return sum(max(0, reached - started) for reached, started in pairs)

    def steps_of_ideal(self, bare: "Run") -> float:
        """Return the steps of an ideal checkpointer: all the time after these very start-ups, at the pace that a
        training without checkpoints had in the same minutes."""
        usual = bare.usual_step_seconds
        return sum(
            (uptime - startup) / (pace or usual)
            for uptime, startup, pace in zip(self.uptimes, self.startup, bare.step_seconds, strict=False)
        )

    @property
    def usual_step_seconds(self) -> float:
        """Return the median over the attempts."""
        return statistics.median(seconds for seconds in self.step_seconds if seconds is not None)


def attempt(run: Run, command: list[str], uptime: float | None) -> None:
    """Start the training; kill it after *uptime*, or at its first step if that is None."""
    began = last = time.monotonic()
    startup = None
    steps: list[int] = []
    is_stepping = threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:

        def follow() -> None:
            nonlocal last, startup
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("step "):
                    last = time.monotonic()
                    startup = last - began if startup is None else startup
                    steps.append(int(line.split()[1]))
                    is_stepping.set()

        follower = threading.Thread(target=follow)
        follower.start()
        if uptime is None:
            is_stepping.wait(300)
        else:
            time.sleep(uptime)
            run.uptimes.append(time.monotonic() - began)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        follower.join()
    run.startup.append(startup if startup is not None else run.uptimes[-1])
    is_stepping_on = startup is not None and len(steps) > 10
    run.step_seconds.append((last - began - (startup or 0)) / (len(steps) - 1) if is_stepping_on else None)
    previous = run.reached[-1] if run.reached else 0
    run.started.append(steps[0] if steps else previous)
    run.reached.append(steps[-1] if steps else previous)


def main() -> None:
    """Run all schemes side by side, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--full", action="store_true", help="20 kills")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--mean-uptime", type=float)
    parser.add_argument("--epoch-seconds", type=float, nargs="+")
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=SCHEMES)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=(*SCHEMES, BARE), help=argparse.SUPPRESS)
    args = parser.parse_args()
    scale = 1 / 3 if args.quick else 1.0
    kills = args.kills or (20 if args.full else 4 if args.quick else 8)
    mean_uptime = args.mean_uptime or 60 * scale
    epochs = args.epoch_seconds or [40 * scale, 120 * scale]
    if args.child:
        train(args.child, args.megabytes, epochs[0], args.every, args.dir)
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=args.dir))
    rng = random.Random(args.seed)
    uptimes = [rng.expovariate(1 / mean_uptime) for _ in range(kills)]
    # Young, with the some 0.3 s that Lightning's own save of such a state takes.
    every = max(1, round(math.sqrt(2 * 0.3 * mean_uptime) / STEP_SECONDS))
    runs = [Run(scheme, epoch) for epoch in epochs for scheme in args.schemes]
    bare = Run(BARE, epochs[-1])

    def campaign(run: Run) -> None:
        folder = root / f"{run.scheme}-{run.epoch_seconds:g}"
        folder.mkdir()
        command = [sys.executable, __file__, "--child", run.scheme, "--epoch-seconds", str(run.epoch_seconds)]
        command += ["--megabytes", str(args.megabytes), "--every", str(every), "--dir", str(folder)]
        for uptime in [*uptimes, None]:
            attempt(run, command, uptime)

    threads = [threading.Thread(target=campaign, args=(run,)) for run in [bare, *runs]]
    try:
        for thread in threads:
            thread.start()
            time.sleep(3)  # so that they do not all import at once
        for thread in threads:
            thread.join()
    finally:
        if "SPOTPROOF_KEEP" not in os.environ:
            shutil.rmtree(root, ignore_errors=True)
    settings = (
        f"{kills} SIGKILLs after {', '.join(f'{uptime:.0f}' for uptime in uptimes)} s (mean of the distribution "
        f"{mean_uptime:g} s, seed {args.seed}), {args.megabytes} MB of state"
    )
    finish(summarized(runs, bare, epochs, settings), args.json)


def summarized(runs: list[Run], bare: Run, epochs: list[float], settings: str) -> Result:
    """Return the table."""
    rows, goals = [], []
    step_seconds = bare.usual_step_seconds
    for epoch in epochs:
        ours = next(run for run in runs if run.scheme == "spotproof" and run.epoch_seconds == epoch)
        name = f"{epoch:.0f} s epochs"
        steps = ours.steps_of_ideal(bare)
        for run in (None, *(run for run in runs if run.epoch_seconds == epoch)):
            done, seconds = (run.useful_steps, sum(run.uptimes)) if run else (steps, sum(ours.uptimes))
            rows.append(
                [
                    f"{name}: {run.scheme if run else 'ideal'}",
                    f"{done * step_seconds / seconds:.3f}",
                    f"{done / steps:.2f}",
                    f"{run.lost_steps if run else 0}",
                    f"{statistics.median((run or ours).startup):.1f} s",
                ]
            )
        what = f"goodput to an ideal checkpointer's, {name}"
        goals.append(Goal(what=what, measured=ours.useful_steps / steps, limit=0.95, is_least=True))
    return Result(
        "goodput",
        "Goodput under SIGKILLs",
        f"{settings}; a step takes {step_seconds * 1e3:.1f} ms where nothing is saved",
        ["", "goodput", "to the ideal", "lost steps", "start-up (median)"],
        rows,
        goals,
    )


if __name__ == "__main__":
    main()
