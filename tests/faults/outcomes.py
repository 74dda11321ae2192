"""What the fault tests share: trainings that are really killed."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from spotproof.checkpoint.journal import read_events
from spotproof.events import Resumed
from spotproof.storage import LocalStorage

HERE = Path(__file__).parent


class Zygote:
    """Starts trainings; see training_zygote.py."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "training_zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def train(self, folder, scenario, *, kill=None, mutate=None, settle=True, kill_after=None, **machine):
        """Run one attempt; return its exit code, negative for a signal.

        Of the *machine*: ``env``, a ``fault`` (see faulty_machine.py), ``spot``, further arguments of the callback, and
        a ``dirpath`` for the checkpoints instead of the one in *folder*.
        """
        folder.mkdir(exist_ok=True)
        request = {"folder": str(folder), "scenario": scenario, "kill": kill, "mutate": mutate, "settle": settle}
        request.update(kill_after=kill_after, **machine)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.last_seconds = answer["seconds"]
        return answer["exit"]

    def close(self):
        """End it."""
        self._process.stdin.close()
        self._process.wait(60)  # a busy machine takes long to unload torch
        self._process.stdout.close()


def resumed_steps(folder, name="checkpoints"):
    """Return the steps that the attempts of a run resumed from."""
    storage = LocalStorage(folder / name)
    events = [event for entry in storage.list("events/") for event in read_events(storage, int(entry.key[-10:-6]))]
    return [event.step for event in events if isinstance(event, Resumed)]


class Outcome:
    """What a training left: final state, and for each batch, validation and epoch what happened in it last."""

    def __init__(self, folder):
        self.final = torch.load(folder / "final.pt", weights_only=True)
        self.trace = {}
        for line in (folder / "trace.jsonl").read_text().splitlines():
            kind, epoch, index, *rest = json.loads(line)
            if kind == "epoch":
                self.trace[kind, epoch] = index
            elif kind == "val":
                self.trace[kind, epoch, index, rest[0]] = rest[1:]
            else:
                self.trace[kind, epoch, index] = rest


def tensors(state, path=""):
    """Yield (path, tensor or value) of a nested state."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from tensors(value, f"{path}/{key}")
    elif isinstance(state, (list, tuple)):
        for index, value in enumerate(state):
            yield from tensors(value, f"{path}/{index}")
    else:
        yield path, state


def assert_same_outcome(one, other):
    """Bit for bit: parameters, optimizer, generators; sample ids, losses, metrics and validations of every step."""
    assert not one.trace.keys() ^ other.trace.keys()
    for key, value in one.trace.items():
        assert value == other.trace[key], key
    left, right = dict(tensors(one.final)), dict(tensors(other.final))
    assert not left.keys() ^ right.keys()
    for path, value in left.items():
        assert type(value) is type(right[path]), path
        same = torch.equal(value, right[path]) if isinstance(value, torch.Tensor) else value == right[path]
        assert same, (path, value, right[path])
