"""Goodput under SIGKILLs: which share of the time does the training get ahead? Four schemes on the same kills.

    python benchmarks/goodput.py [--kills 8] [--mean-uptime 60] [--epoch-seconds 40 120] [--seed 1] [--dir FOLDER]

Uptimes are drawn from an exponential distribution, the same for each scheme; after each a SIGKILL, at once the next
start. A step waits, as the host does while an accelerator computes, so that the schemes can run side by side without
taking the processor from each other; the state is a model's and Adam's. Goodput is the training time of the steps that
a last start finds done, by the time that all attempts took.

ideal      no stall, nothing lost: uptimes less the same start-up
spotproof  SpotCheckpoint(every_n_seconds="auto")
steps      Lightning's ModelCheckpoint(every_n_train_steps=N), N from Young's formula and Lightning's own save
epoch      Lightning's ModelCheckpoint once an epoch, as in "Fault-tolerant model training on spot instances" (2022)
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
    step_seconds: list[float] = field(default_factory=list)
    """Time of a step in each attempt, all its steps together."""
    startup: list[float] = field(default_factory=list)
    """Seconds to the first step of each attempt that had one."""
    seconds: float = 0.0
    """All attempts together."""

    @property
    def useful_steps(self) -> int:
        """Return the step that the last start went on from."""
        return self.started[-1]

    @property
    def lost_steps(self) -> int:
        """Return the steps that were done and had to be done again."""
        pairs = zip(self.reached[:-1], self.started[1:], strict=True)
        return sum(max(0, reached - started) for reached, started in pairs)


def attempt(run: Run, command: list[str], uptime: float | None) -> None:
    """Start the training; kill it after *uptime*, or at its first step if that is None."""
    began = last = time.monotonic()
    steps: list[int] = []
    is_stepping = threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:

        def follow() -> None:
            nonlocal last
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("step "):
                    if not steps:
                        run.startup.append(time.monotonic() - began)
                    steps.append(int(line.split()[1]))
                    last = time.monotonic()
                    is_stepping.set()

        follower = threading.Thread(target=follow)
        follower.start()
        if uptime is None:
            is_stepping.wait(300)
        else:
            time.sleep(uptime)
            run.seconds += time.monotonic() - began
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        follower.join()
    if len(steps) > 1:
        run.step_seconds.append((last - began - run.startup[-1]) / (len(steps) - 1))
    previous = run.reached[-1] if run.reached else 0
    run.started.append(steps[0] if steps else previous)
    run.reached.append(steps[-1] if steps else previous)


def main() -> None:
    """Run all schemes side by side, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--mean-uptime", type=float, default=60.0)
    parser.add_argument("--epoch-seconds", type=float, nargs="+", default=[40.0, 120.0])
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, default=Path(".spotproof"))
    parser.add_argument("--every", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=(*SCHEMES, BARE), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child, args.megabytes, args.epoch_seconds[0], args.every, args.dir)
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=args.dir))
    rng = random.Random(args.seed)
    uptimes = [rng.expovariate(1 / args.mean_uptime) for _ in range(args.kills)]
    print(f"{args.kills} kills after {', '.join(f'{uptime:.0f}' for uptime in uptimes)} s")
    # Young, with the some 0.3 s that Lightning's own save of such a state takes.
    every = max(1, round(math.sqrt(2 * 0.3 * args.mean_uptime) / STEP_SECONDS))
    runs = [Run(scheme, epoch) for epoch in args.epoch_seconds for scheme in SCHEMES]
    bare = Run(BARE, args.epoch_seconds[-1])

    def campaign(run: Run) -> None:
        folder = root / f"{run.scheme}-{run.epoch_seconds:g}"
        folder.mkdir()
        command = [sys.executable, __file__, "--child", run.scheme, "--epoch-seconds", str(run.epoch_seconds)]
        command += ["--megabytes", str(args.megabytes), "--every", str(every), "--dir", str(folder)]
        for uptime in [*uptimes, None]:
            attempt(run, command, uptime)

    threads = [threading.Thread(target=campaign, args=(run,)) for run in [*runs, bare]]
    try:
        for thread in threads:
            thread.start()
            time.sleep(3)  # so that they do not all import at once
        for thread in threads:
            thread.join()
    finally:
        shutil.rmtree(root, ignore_errors=True)

    step_seconds = statistics.median(bare.step_seconds)
    print(f"a step takes {step_seconds * 1e3:.1f} ms where nothing is saved")
    print(f"{'epoch':>6} {'scheme':12} {'goodput':>8} {'x ideal':>8} {'lost steps':>11} {'start-up s':>11}")
    for epoch in args.epoch_seconds:
        ours = next(run for run in runs if run.scheme == "spotproof" and run.epoch_seconds == epoch)
        startup = statistics.median(ours.startup)
        ideal = sum(max(0.0, uptime - startup) for uptime in uptimes) / sum(uptimes)
        print(f"{epoch:5.0f}s {'ideal':12} {ideal:8.2f} {1:8.2f} {0:11} {startup:11.1f}")
        for run in runs:
            if run.epoch_seconds == epoch:
                goodput = run.useful_steps * step_seconds / run.seconds
                median = statistics.median(run.startup)
                print(
                    f"{epoch:5.0f}s {run.scheme:12} {goodput:8.2f} {goodput / ideal:8.2f} {run.lost_steps:11} "
                    f"{median:11.1f}"
                )


if __name__ == "__main__":
    main()
