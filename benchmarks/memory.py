"""How much memory does saving take beside the state? A process for each rival, while the storage is slow.

    python benchmarks/memory.py [--megabytes 512] [--saves 6] [--dir FOLDER]

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--saves", type=int, default=6)
    parser.add_argument("--dir", type=Path, default=Path(".spotproof"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.megabytes, args.saves, args.dir)
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    print(f"{args.megabytes} MB of state, {args.saves} saves due faster than the storage takes them")
    for rival in RIVALS:
        folder = tempfile.mkdtemp(prefix="bench-", dir=args.dir)
        command = [sys.executable, __file__, "--child", rival, "--megabytes", str(args.megabytes)]
        command += ["--saves", str(args.saves), "--dir", folder]
        try:
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{rival:30} {float(ended.stdout.split()[-1]):6.2f} x the state")


if __name__ == "__main__":
    main()
