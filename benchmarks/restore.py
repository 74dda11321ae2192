"""How long does it take to read a checkpoint, and to come back to the first step?

    python benchmarks/restore.py [--quick] [--json FILE] [--megabytes 512] [--rounds 8] [--dir FOLDER]

Reading: our verified read and ``torch.load`` of the same bytes, in one process, in turn. Starting: from the start of a
process to its first training step, one process for each way in every round: a cold start and a resume with Lightning
alone (nothing verified), with SpotCheckpoint (every byte verified), and the same under ``python -m
spotproof.container``, where a cold start has SpotCheckpoint in an empty folder. Ratios are medians of each round's own.
Importing: what ``import spotproof`` takes in a process that does nothing else.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from common import Goal, Result, add_options, finish

from spotproof.contract import ENV_BASE_DIR

COLD, STOCK, OURS = "cold start", "Lightning resume", "Spotproof resume"
COLD_IN_CONTAINER, IN_CONTAINER = "cold start under the container", "Spotproof resume under the container"
MODES = (COLD, STOCK, OURS, COLD_IN_CONTAINER, IN_CONTAINER)
IMPORT = "import spotproof"
LOAD, READ = "torch.load", "Spotproof's verified read"


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
    if mode in (OURS, COLD_IN_CONTAINER, IN_CONTAINER):
        from spotproof.lightning import SpotCheckpoint

        spot = SpotCheckpoint(folder, every_n_steps=10**6, every_n_seconds=None)
        options["callbacks"] = [spot]
        ckpt_path = spot.latest()
    elif mode == STOCK:
        options["callbacks"] = [ModelCheckpoint(folder, save_last=True, every_n_train_steps=max_steps)]
        last = folder / "last.ckpt"
        ckpt_path = str(last) if last.exists() else None
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=mode == STOCK,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    data = DataLoader(TensorDataset(torch.randn(64, size)), batch_size=4, shuffle=True)
    trainer.fit(Model(), data, ckpt_path=ckpt_path)


def seconds_to_first_step(mode: str, megabytes: int, root: Path, max_steps: int) -> float:
    """Start a process, and kill it once it has told its first step, unless it is to write a checkpoint."""
    folder = root / mode.replace(" ", "-")
    if mode in (COLD, COLD_IN_CONTAINER):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    arguments = ["--child", mode, "--megabytes", str(megabytes), "--dir", str(folder), "--max-steps", str(max_steps)]
    command = [sys.executable, __file__, *arguments]
    environment = dict(os.environ)
    if mode in (COLD_IN_CONTAINER, IN_CONTAINER):
        command = [sys.executable, "-m", "spotproof.container", __file__, *arguments]
        environment |= container_environment(root / "ml", folder)
    began = time.time()
    first = None
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first is None and line.startswith("first step at "):
                first = float(line.split()[-1]) - began
                if max_steps > 2:
                    os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if first is None:
        raise RuntimeError(f"{mode}: no first step")
    return first


def container_environment(ml_root: Path, checkpoints: Path) -> dict[str, str]:
    """Return what leads the container's runtime to *checkpoints*, as SageMaker's files would."""
    config = ml_root / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "checkpointconfig.json").write_text(json.dumps({"LocalPath": str(checkpoints)}))
    return {ENV_BASE_DIR: str(ml_root)}


def measure_reading(megabytes: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of both ways of reading in each round."""
    import torch
    from save_stall import State

    from spotproof.checkpoint import Checkpointer

    state = State(megabytes)
    checkpointer = Checkpointer(folder / "read")
    checkpointer.register("state", state)
    checkpointer.save(1, wait=True)
    torch.save(state.state_dict(), folder / "read.pt")
    seconds: dict[str, list[float]] = {LOAD: [], READ: []}
    for turn in range(rounds + 1):
        began = time.perf_counter()
        loaded_state = torch.load(folder / "read.pt", weights_only=True)
        loaded = time.perf_counter()
        del loaded_state
        began_reading = time.perf_counter()
        reader = Checkpointer(folder / "read")
        manifest = reader.latest()
        assert manifest is not None
        read_state = reader.read(manifest)
        read = time.perf_counter()
        del read_state
        if turn:
            seconds[LOAD].append(loaded - began)
            seconds[READ].append(read - began_reading)
    return seconds


def measure_import(rounds: int) -> list[float]:
    """Return the seconds that ``import spotproof`` takes, each time in a new process."""
    program = (
        "import sys, time; began = time.perf_counter(); import spotproof; print(time.perf_counter() - began); "
        "sys.exit(bool({'torch', 'boto3'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program]
    return [float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) for _ in range(rounds)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--max-steps", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    megabytes = args.megabytes or (64 if args.quick else 512)
    rounds = args.rounds or (2 if args.quick else 8)
    if args.child:
        train(args.child, megabytes, args.dir, max_steps=args.max_steps)
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=args.dir)).absolute()
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        seconds = measure_reading(megabytes, rounds, folder) | {IMPORT: measure_import(rounds)}
        for mode in (STOCK, OURS, IN_CONTAINER):
            seconds_to_first_step(mode, megabytes, folder, 2)  # writes the checkpoint
        seconds |= {mode: [] for mode in MODES}
        for turn in range(rounds):
            for mode in MODES[turn % len(MODES) :] + MODES[: turn % len(MODES)]:
                seconds[mode].append(seconds_to_first_step(mode, megabytes, folder, 10**6))
            print(f"  round {turn + 1} of {rounds}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finish(summarized(seconds, f"{megabytes} MB of state, in the page cache, {rounds} rounds"), args.json)


def summarized(seconds: dict[str, list[float]], settings: str) -> Result:
    """Return the table."""
    rows = [[name, f"{min(values):.3f} s", f"{statistics.median(values):.3f} s"] for name, values in seconds.items()]

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    goals = [
        Goal(what="verified read to torch.load", measured=ratio(READ, LOAD), limit=1.5),
        Goal(what="process start → first step to Lightning's resume", measured=ratio(OURS, STOCK), limit=1.02),
        Goal(
            what="the same under the container to a cold start there",
            measured=ratio(IN_CONTAINER, COLD_IN_CONTAINER),
            limit=1.05,
        ),
    ]
    goals.append(
        Goal(what="import spotproof, neither torch nor boto3", measured=max(seconds[IMPORT]), limit=0.3, unit="s")
    )
    return Result("restore", "Back to the first step", settings, ["", "min", "median"], rows, goals)


if __name__ == "__main__":
    main()
