"""How long does a save stop training, and how long until it is durable? Each beside its rivals, in the same minutes.

    python benchmarks/save_stall.py [--megabytes 512] [--rounds 8] [--dir FOLDER]

Prints ratios to a warm memcpy of the same bytes, the floor of any snapshot by copying. The state is a model's and
Adam's: three tensors for each parameter. Each rival saves the same state, one after another in each round.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from spotproof.checkpoint import Checkpointer

NUM_TENSORS = 72


class State:
    """A state of the given size that changes in every round."""

    def __init__(self, megabytes: int) -> None:
        size = megabytes * 2**20 // 4 // NUM_TENSORS
        self.tensors = {f"layer{index}.weight": torch.randn(size) for index in range(NUM_TENSORS)}

    def change(self) -> None:
        """Change every tensor, as an optimizer step does."""
        for tensor in self.tensors.values():
            tensor.add_(1.0)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the live tensors."""
        return self.tensors

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take *state*."""
        self.tensors = state


def raw_write(path: Path, data: memoryview) -> None:
    """Write and fsync: the floor of anything durable."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def measure(megabytes: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each measure in each round."""
    state = State(megabytes)
    copy = {name: tensor.clone() for name, tensor in state.tensors.items()}
    checkpointer = Checkpointer(folder / "ours")
    checkpointer.register("state", state)
    plain, behind = TorchCheckpointIO(), AsyncCheckpointIO(TorchCheckpointIO())
    flat = torch.cat(list(copy.values())).numpy().data.cast("B")

    def memcpy() -> None:
        for name, tensor in state.tensors.items():
            copy[name].copy_(tensor)

    def settle_async() -> None:
        # AsyncCheckpointIO has no way to wait but its end, after which it takes no more saves.
        behind._executor.submit(lambda: None).result()

    steps = iter(range(10**9))
    measures: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "warm memcpy": (memcpy, lambda: None),
        "Spotproof stall": (lambda: checkpointer.save(next(steps)), checkpointer.wait),
        "Lightning synchronous save": (
            lambda: plain.save_checkpoint(state.state_dict(), folder / "sync.ckpt"),
            os.sync,
        ),
        "AsyncCheckpointIO stall": (
            lambda: behind.save_checkpoint(state.state_dict(), folder / "async.ckpt"),
            settle_async,
        ),
        "raw write + fsync": (lambda: raw_write(folder / "raw", flat), lambda: None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    seconds["Spotproof staged → durable"] = []
    for turn in range(rounds + 1):  # the first warms up
        for name, (action, settle) in measures.items():
            state.change()
            began = time.perf_counter()
            action()
            taken = time.perf_counter() - began
            settle()
            if turn:
                seconds[name].append(taken)
            if name == "Spotproof stall" and turn and checkpointer.writer and checkpointer.writer.last_durable_seconds:
                seconds["Spotproof staged → durable"].append(checkpointer.writer.last_durable_seconds)
        print(f"  round {turn} of {rounds}", flush=True)
    checkpointer.close()
    behind.teardown()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--dir", type=Path, default=None, help="where to write; by default a new folder in .spotproof")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    root = args.dir or Path(".spotproof")
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
    print(f"{args.megabytes} MB of state in {NUM_TENSORS} tensors, {torch.get_num_threads()} threads")
    try:
        seconds = measure(args.megabytes, args.rounds, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    memcpy = statistics.median(seconds["warm memcpy"])
    raw = statistics.median(seconds["raw write + fsync"])
    print(f"{'':30} {'min s':>8} {'median s':>9} {'max s':>8} {'x memcpy':>9} {'x raw write':>11}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(
            f"{name:30} {min(values):8.3f} {median:9.3f} {max(values):8.3f} {median / memcpy:9.2f} {median / raw:11.2f}"
        )


if __name__ == "__main__":
    main()
