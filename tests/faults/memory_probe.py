"""Prints how far the resident memory rises above the state, while a process saves to S3 and restores from there."""

import json
import sys
import threading
import time

import torch

from spotproof.checkpoint import Checkpointer
from spotproof.storage import open_storage

place, mebibytes = sys.argv[1], int(sys.argv[2])


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Peak:
    """The highest resident memory above what it was at the beginning."""

    def __enter__(self):
        self.before = self.highest = resident_bytes()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._is_over.wait(0.002):
            self.highest = max(self.highest, resident_bytes())

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()
        self.bytes = self.highest - self.before


class State:
    def __init__(self, tensors):
        self.tensors = tensors

    def state_dict(self):
        return self.tensors

    def load_state_dict(self, tensors):
        self.tensors = tensors


def main():
    tensors = {str(n): torch.full((2**18,), float(n)) for n in range(mebibytes - 1)}
    # What the client itself takes, whatever the state's size: threads, connections, TLS.
    warm = Checkpointer(f"{place}-warm")
    warm.register("s", State({"w": torch.rand(2**22)}))
    warm.save(1, wait=True)
    Checkpointer(f"{place}-warm").latest()
    checkpointer = Checkpointer(place)
    checkpointer.register("s", state := State(tensors))
    with Peak() as saving:
        for step in (1, 2, 3):
            for tensor in tensors.values():
                tensor += 1
            checkpointer.save(step, wait=True)
    del checkpointer, warm
    state.tensors = tensors = None
    time.sleep(0.1)
    reader = Checkpointer(place)
    reader.register("s", again := State({}))
    with Peak() as reading:
        assert reader.restore() == 3
    assert torch.equal(again.tensors["5"], torch.full((2**18,), 8.0))
    assert open_storage(place).list("step-")
    print(json.dumps({"saving": saving.bytes / 2**20, "reading": reading.bytes / 2**20}))


main()
