"""How long does a save stop training, and how long until it is durable? Each beside its rivals, in the same minutes.

    python benchmarks/save_stall.py [--megabytes 1024] [--rounds 8] [--dir FOLDER]

Prints ratios to a warm memcpy of the same bytes, the floor of any snapshot by copying, and to a raw write and fsync.
The state is a model's and Adam's: three tensors for each parameter. Each rival saves the same state, one after another
in each round. The first rounds warm up: buffers, and the disk's blocks, which cost more the first time.
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
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.journal import read_events
from spotproof.events import CheckpointCommitted

NUM_TENSORS = 72
WARM_UP_ROUNDS = 4
FROZEN_SHARE = 0.95


class State:
    """A state of the given size that changes in every round."""

    def __init__(self, megabytes: int) -> None:
        size = megabytes * 2**20 // 4 // NUM_TENSORS
        self.tensors = {f"layer{index}.weight": torch.randn(size) for index in range(NUM_TENSORS)}
        self.num_frozen = 0

    def change(self) -> None:
        """Change every tensor that is not frozen, as an optimizer step does."""
        for tensor in list(self.tensors.values())[self.num_frozen :]:
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


def measure(megabytes: int, rounds: int, folder: Path) -> tuple[dict[str, list[float]], list[int]]:
    """Return the seconds of each measure in each round, and the bytes that saves of the frozen model wrote."""
    state, frozen = State(megabytes), State(megabytes)
    frozen.num_frozen = round(FROZEN_SHARE * NUM_TENSORS)
    copy = {name: tensor.clone() for name, tensor in state.tensors.items()}
    checkpointer, of_frozen = Checkpointer(folder / "ours"), Checkpointer(folder / "frozen")
    checkpointer.register("state", state)
    of_frozen.register("state", frozen)
    plain, behind = TorchCheckpointIO(), AsyncCheckpointIO(TorchCheckpointIO())
    flat = torch.cat(list(copy.values())).numpy().data.cast("B")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    under_way = []

    def memcpy() -> None:
        for name, tensor in state.tensors.items():
            copy[name].copy_(tensor)

    def settle_async() -> None:
        # AsyncCheckpointIO has no way to wait but its end, after which it takes no more saves.
        behind._executor.submit(lambda: None).result()

    def save_by_dcp() -> None:
        under_way.append(dcp.async_save(state.state_dict(), checkpoint_id=folder / "dcp", no_dist=True))

    def nothing() -> None:
        pass

    steps = iter(range(10**9))
    # Name → what is timed, what is waited for after it.
    measures: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "warm memcpy": (memcpy, nothing),
        "Spotproof stall": (lambda: checkpointer.save(next(steps)), checkpointer.wait),
        f"the same, {FROZEN_SHARE:.0%} frozen": (lambda: of_frozen.save(next(steps)), of_frozen.wait),
        "Lightning synchronous save": (
            lambda: plain.save_checkpoint(state.state_dict(), folder / "sync.ckpt"),
            os.sync,
        ),
        "AsyncCheckpointIO stall": (
            lambda: behind.save_checkpoint(state.state_dict(), folder / "async.ckpt"),
            settle_async,
        ),
        "DCP async_save stall": (save_by_dcp, lambda: under_way.pop().result()),
        "raw write + fsync": (lambda: raw_write(folder / "raw", flat), nothing),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    seconds["Spotproof staged → durable"] = []
    for turn in range(rounds + WARM_UP_ROUNDS):
        for name, (action, settle) in measures.items():
            state.change()
            frozen.change()
            began = time.perf_counter()
            action()
            taken = time.perf_counter() - began
            settle()
            os.sync()  # what one rival left in the page cache must not slow the next one down
            if turn < WARM_UP_ROUNDS:
                continue
            seconds[name].append(taken)
            if name == "Spotproof stall" and checkpointer.writer and checkpointer.writer.last_durable_seconds:
                seconds["Spotproof staged → durable"].append(checkpointer.writer.last_durable_seconds)
        print(f"  round {turn + 1} of {rounds + WARM_UP_ROUNDS}", flush=True)
    checkpointer.close()
    behind.teardown()
    dist.destroy_process_group()
    committed = [event for event in read_events(of_frozen.storage, 0) if isinstance(event, CheckpointCommitted)]
    return seconds, [event.written_bytes for event in committed[1:]]


def percentile95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--dir", type=Path, default=None, help="where to write; by default a new folder in .spotproof")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    root = args.dir or Path(".spotproof")
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
    print(f"{args.megabytes} MB of state in {NUM_TENSORS} tensors, {torch.get_num_threads()} threads")
    try:
        seconds, frozen_bytes = measure(args.megabytes, args.rounds, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    memcpy = statistics.median(seconds["warm memcpy"])
    raw = statistics.median(seconds["raw write + fsync"])
    print(f"{'':30} {'min s':>8} {'median s':>9} {'p95 s':>8} {'p95/med':>8} {'x memcpy':>9} {'x raw write':>11}")
    for name, values in seconds.items():
        median, high = statistics.median(values), percentile95(values)
        print(
            f"{name:30} {min(values):8.3f} {median:9.3f} {high:8.3f} {high / median:8.2f} {median / memcpy:9.2f} "
            f"{median / raw:11.2f}"
        )
    share = max(frozen_bytes) / (args.megabytes * 2**20)
    print(f"{FROZEN_SHARE:.0%} frozen: at most {share:.1%} of the bytes written by any save after the first")


if __name__ == "__main__":
    main()
