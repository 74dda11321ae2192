"""How much memory does saving take beside the state? A process for each rival, while the storage is slow.

    python benchmarks/memory.py [--quick] [--json FILE] [--megabytes 512] [--saves 6] [--dir FOLDER]

Every write is slowed down to 100 MB/s, and saves come due faster than that: a rival that queues copies shows it.
Printed is how far the resident memory rose at most above what it was with the state alone, as a multiple of the state.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from common import Goal, Result, add_options, finish

BYTES_PER_SECOND = 100e6
RIVALS = ("Spotproof", "AsyncCheckpointIO", "Lightning synchronous save")


class SlowFile:
    """A file whose writes take their time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        """Write *data* at the slow disk's pace."""
        time.sleep(memoryview(data).nbytes / BYTES_PER_SECOND)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS in /proc/self/status")


def saver(rival: str, tensors: dict[str, Any], folder: Path) -> tuple[Callable[[int], object], Callable[[], object]]:
    """Return what makes a save, and what waits for all of them."""
    import torch
    from lightning.fabric.plugins.io import TorchCheckpointIO
    from lightning.pytorch.plugins.io import AsyncCheckpointIO

    from spotproof.checkpoint import Checkpointer
    from spotproof.storage import LocalStorage

    if rival == "Spotproof":

        class State:
            def state_dict(self) -> dict[str, Any]:
                return tensors

            def load_state_dict(self, state: dict[str, Any]) -> None:
                raise NotImplementedError

        real_put = LocalStorage.put

        def slow_put(self: LocalStorage, key: str, chunks: Any, **options: Any) -> None:
            chunks = list(chunks)
            time.sleep(sum(len(chunk) for chunk in chunks) / BYTES_PER_SECOND)
            real_put(self, key, chunks, **options)

        LocalStorage.put = slow_put  # type: ignore[method-assign]
        checkpointer = Checkpointer(folder)
        checkpointer.register("state", State())
        return checkpointer.save, checkpointer.wait

    class SlowIO(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            with open(path, "wb") as file:
                torch.save(checkpoint, SlowFile(file))

    if rival == "AsyncCheckpointIO":
        behind = AsyncCheckpointIO(SlowIO())
        return lambda step: behind.save_checkpoint(tensors, folder / f"{step}.ckpt"), behind.teardown
    return lambda step: SlowIO().save_checkpoint(tensors, folder / f"{step}.ckpt"), lambda: None


def child(rival: str, megabytes: int, num_saves: int, folder: Path) -> None:
    """Save, and print the highest rise of the resident memory in states."""
    import torch

    warnings.simplefilter("ignore")
    tensors = {f"layer{index}": torch.randn(megabytes * 2**18 // 72) for index in range(72)}
    save, wait = saver(rival, tensors, folder)
    before = highest = resident_bytes()
    is_over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not is_over.wait(0.005):
            highest = max(highest, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in range(num_saves):
        save(step)
        for tensor in tensors.values():
            tensor.add_(1.0)
        time.sleep(0.3)
    wait()
    is_over.set()
    watcher.join()
    print((highest - before) / (megabytes * 2**20))


def main() -> None:
    """Measure each rival in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--saves", type=int)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    megabytes = args.megabytes or (64 if args.quick else 512)
    saves = args.saves or (3 if args.quick else 6)
    if args.child:
        child(args.child, megabytes, saves, args.dir)
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    rises = {}
    for rival in RIVALS:
        folder = tempfile.mkdtemp(prefix="bench-", dir=args.dir)
        command = [sys.executable, __file__, "--child", rival, "--megabytes", str(megabytes)]
        command += ["--saves", str(saves), "--dir", folder]
        try:
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        rises[rival] = float(ended.stdout.split()[-1])
    result = Result(
        "memory",
        "Memory that saving takes beside the state",
        f"{megabytes} MB of state, {saves} saves due faster than a storage of {BYTES_PER_SECOND / 1e6:.0f} MB/s takes",
        ["", "x the state"],
        [[rival, f"{rise:.2f}"] for rival, rise in rises.items()],
        [Goal(what="extra memory to the state", measured=rises[RIVALS[0]], limit=1.15)],
    )
    finish(result, args.json)


if __name__ == "__main__":
    main()
