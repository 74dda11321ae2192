"""How long does a save stop training, and how long until it is durable? Each beside its rivals, in the same minutes.

    python benchmarks/save_stall.py [--quick] [--json FILE] [--megabytes 1024] [--rounds 10] [--dir FOLDER]

The floor of any snapshot by copying is a warm memcpy of the same bytes: torch's copy into tensors that are there, on
all threads, or numpy's on one, whichever is faster in the median. That of anything durable is a raw write and fsync.
The state is a model's and Adam's: three tensors for each parameter. In each round each rival saves the same state once,
every round in another order; before each, some steps of a real training run in the same process and every tensor
changes, so that caches and the allocator are as a training leaves them. What a rival wrote is fsynced before the next
one's turn. The first rounds warm up: buffers, and the disk's blocks, which cost more the first time.
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

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from common import Goal, Result, add_options, finish, percentile95
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.journal import read_events
from spotproof.events import CheckpointCommitted

NUM_TENSORS = 72
WARM_UP_ROUNDS = 4
FROZEN_SHARE = 0.95
MEMCPY, MEMCPY_ON_ONE, RAW = "warm memcpy, torch", "warm memcpy, one thread", "raw write + fsync"
OURS, FROZEN, DURABLE = "Spotproof stall", f"the same, {FROZEN_SHARE:.0%} frozen", "Spotproof staged → durable"
SYNC, ASYNC, DCP = "Lightning synchronous save", "AsyncCheckpointIO stall", "DCP async_save stall"


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


class Training:
    """Steps of an MLP, for what they do to the process between two saves."""

    def __init__(self) -> None:
        self.model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(4)])
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def step(self) -> None:
        """Train one step."""
        self.optimizer.zero_grad()
        self.model(torch.randn(128, 1024)).square().mean().backward()
        self.optimizer.step()


def settle(folder: Path) -> None:
    """Return when all files below *folder* are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


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

    def memcpy_on_one() -> None:
        for name, tensor in state.tensors.items():
            np.copyto(copy[name].numpy(), tensor.numpy())

    def wait_for_async() -> None:
        # AsyncCheckpointIO has no way to wait but its end, after which it takes no more saves.
        behind._executor.submit(lambda: None).result()

    def save_by_dcp() -> None:
        under_way.append(dcp.async_save(state.state_dict(), checkpoint_id=folder / "dcp", no_dist=True))

    def nothing() -> None:
        pass

    training = Training()
    steps = iter(range(10**9))
    # Name → what is timed, what is waited for after it.
    measures: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        MEMCPY: (memcpy, nothing),
        MEMCPY_ON_ONE: (memcpy_on_one, nothing),
        OURS: (lambda: checkpointer.save(next(steps)), checkpointer.wait),
        FROZEN: (lambda: of_frozen.save(next(steps)), of_frozen.wait),
        SYNC: (
            lambda: plain.save_checkpoint(state.state_dict(), folder / "sync.ckpt"),
            nothing,
        ),
        ASYNC: (
            lambda: behind.save_checkpoint(state.state_dict(), folder / "async.ckpt"),
            wait_for_async,
        ),
        DCP: (save_by_dcp, lambda: under_way.pop().result()),
        RAW: (lambda: raw_write(folder / "raw", flat), nothing),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    seconds[DURABLE] = []
    for turn in range(rounds + WARM_UP_ROUNDS):
        names = list(measures)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            action, wait = measures[name]
            for _ in range(3):
                training.step()
            state.change()
            frozen.change()
            began = time.perf_counter()
            action()
            taken = time.perf_counter() - began
            wait()
            settle(folder)
            if turn < WARM_UP_ROUNDS:
                continue
            seconds[name].append(taken)
            if name == OURS and checkpointer.writer and checkpointer.writer.last_durable_seconds:
                seconds[DURABLE].append(checkpointer.writer.last_durable_seconds)
        print(f"  round {turn + 1} of {rounds + WARM_UP_ROUNDS}", flush=True)
    checkpointer.close()
    behind.teardown()
    dist.destroy_process_group()
    committed = [event for event in read_events(of_frozen.storage, 0) if isinstance(event, CheckpointCommitted)]
    return seconds, [event.written_bytes for event in committed[1:]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    megabytes = args.megabytes or (64 if args.quick else 1024)
    rounds = args.rounds or (3 if args.quick else 10)
    warnings.simplefilter("ignore")
    args.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=args.dir)).absolute()
    try:
        seconds, frozen_bytes = measure(megabytes, rounds, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    settings = (
        f"{megabytes} MB of state in {NUM_TENSORS} tensors, {torch.get_num_threads()} threads, "
        f"{rounds} rounds after {WARM_UP_ROUNDS} to warm up"
    )
    share = max(frozen_bytes) / (megabytes * 2**20)
    finish(summarized(seconds, share, settings), args.json)


def summarized(seconds: dict[str, list[float]], frozen_share: float, settings: str) -> Result:
    """Return the table. Ratios are of medians, but for what a disk's moods decide: there of each round."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    memcpy = min(median[MEMCPY], median[MEMCPY_ON_ONE])
    rows = [
        [
            name,
            *(f"{value * 1000:.1f} ms" for value in (min(values), median[name], percentile95(values))),
            f"{percentile95(values) / median[name]:.2f}",
            f"{median[name] / memcpy:.2f}",
        ]
        for name, values in seconds.items()
    ]
    durable = statistics.median(one / raw for one, raw in zip(seconds[DURABLE], seconds[RAW], strict=True))
    goals = [
        Goal(what="stall to a warm memcpy", measured=median[OURS] / memcpy, limit=1.25),
        Goal(what="stall to Lightning's synchronous save", measured=median[OURS] / median[SYNC], limit=0.10, digits=3),
        Goal(what="stall to AsyncCheckpointIO's", measured=median[OURS] / median[ASYNC], limit=0.5),
        Goal(what="stall to DCP async_save's", measured=median[OURS] / median[DCP], limit=1.0),
        Goal(what="stall, p95 to median", measured=percentile95(seconds[OURS]) / median[OURS], limit=1.5),
        Goal(what="stall of a 95 % frozen state to the full copy", measured=median[FROZEN] / median[OURS], limit=0.1),
        Goal(
            what="bytes written of a 95 % frozen state, most", measured=100 * frozen_share, limit=8, unit="%", digits=1
        ),
        Goal(what="staged → durable to raw write + fsync", measured=durable, limit=1.2),
    ]
    columns = ["", "min", "median", "p95", "p95 / median", "x memcpy"]
    return Result("save_stall", "What a save stops training for", settings, columns, rows, goals)


if __name__ == "__main__":
    main()
