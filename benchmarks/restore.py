"""How long does it take to read a checkpoint, and to come back to the first step?

    python benchmarks/restore.py [--megabytes 512] [--rounds 8] [--dir FOLDER]

Two tables. Reading: our verified read and ``torch.load`` of the same bytes, in one process. Starting: from the start
of a process to its first training step, for a cold start, Lightning's resume (nothing verified) and ours (every byte
verified), one process each in every round.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

MODES = ("cold start", "Lightning resume", "Spotproof resume")


def train(mode: str, megabytes: int, folder: Path, *, max_steps: int) -> None:
    """Train a model of the given size (with Adam: three tensors a parameter) and print the time at the first step."""
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    warnings.simplefilter("ignore")
    size = int((megabytes * 2**20 / 4 / 3 / 4) ** 0.5)

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(size, size, bias=False) for _ in range(4))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            print(f"first step at {time.time()}", flush=True)
            return sum(layer(batch[0]).square().mean() for layer in self.layers)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    pl.seed_everything(0, verbose=False)
    options: dict[str, Any] = {}
    ckpt_path: str | None = None
    if mode == "Spotproof resume":
        from spotproof.lightning import SpotCheckpoint

        spot = SpotCheckpoint(folder / "spotproof", every_n_steps=10**6, every_n_seconds=None)
        options["callbacks"] = [spot]
        ckpt_path = spot.latest()
    elif mode == "Lightning resume":
        options["callbacks"] = [ModelCheckpoint(folder / "lightning", save_last=True, every_n_train_steps=max_steps)]
        last = folder / "lightning" / "last.ckpt"
        ckpt_path = str(last) if last.exists() else None
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=mode == "Lightning resume",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    data = DataLoader(TensorDataset(torch.randn(64, size)), batch_size=4, shuffle=True)
    trainer.fit(Model(), data, ckpt_path=ckpt_path)


def seconds_to_first_step(mode: str, megabytes: int, folder: Path, max_steps: int) -> float:
    """Start a process, and kill it once it has told its first step, unless it is to write a checkpoint."""
    command = [sys.executable, __file__, "--child", mode, "--megabytes", str(megabytes), "--dir", str(folder)]
    command += ["--max-steps", str(max_steps)]
    began = time.time()
    first = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first is None and line.startswith("first step at "):
                first = float(line.split()[-1]) - began
                if max_steps > 2:
                    process.kill()
        process.wait()
    if first is None:
        raise RuntimeError(f"{mode}: no first step")
    return first


def measure_reading(megabytes: int, rounds: int, folder: Path) -> None:
    """Print the table of reading."""
    import torch
    from save_stall import State

    from spotproof.checkpoint import Checkpointer

    state = State(megabytes)
    checkpointer = Checkpointer(folder / "read")
    checkpointer.register("state", state)
    checkpointer.save(1, wait=True)
    torch.save(state.state_dict(), folder / "read.pt")
    seconds: dict[str, list[float]] = {"torch.load": [], "Spotproof, verified": []}
    for turn in range(rounds + 1):
        began = time.perf_counter()
        torch.load(folder / "read.pt", weights_only=True)
        loaded = time.perf_counter()
        reader = Checkpointer(folder / "read")
        manifest = reader.latest()
        assert manifest is not None
        reader.read(manifest)
        read = time.perf_counter()
        if turn:
            seconds["torch.load"].append(loaded - began)
            seconds["Spotproof, verified"].append(read - loaded)
    report(seconds, "torch.load")


def report(seconds: dict[str, list[float]], unit: str) -> None:
    """Print medians, and ratios to *unit*: of the medians, and the median of each round's own ratio."""
    base = statistics.median(seconds[unit])
    print(f"{'':24} {'min s':>8} {'median s':>9} {'x ' + unit:>20} {'by rounds':>10}")
    for name, values in seconds.items():
        median = statistics.median(values)
        by_rounds = statistics.median(one / other for one, other in zip(values, seconds[unit], strict=True))
        print(f"{name:24} {min(values):8.3f} {median:9.3f} {median / base:20.2f} {by_rounds:10.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--dir", type=Path, default=Path(".spotproof"))
    parser.add_argument("--max-steps", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child, args.megabytes, args.dir, max_steps=args.max_steps)
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=args.dir))
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        print(f"Reading {args.megabytes} MB, in the page cache")
        measure_reading(args.megabytes, args.rounds, folder)
        print(f"\nFrom the start of a process to its first step, {args.megabytes} MB of state")
        for mode in MODES[1:]:
            seconds_to_first_step(mode, args.megabytes, folder, 2)  # writes the checkpoint
        seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
        for turn in range(args.rounds):
            for mode in MODES:
                seconds[mode].append(seconds_to_first_step(mode, args.megabytes, folder, 10**6))
            print(f"  round {turn + 1} of {args.rounds}", flush=True)
        report(seconds, "Lightning resume")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
