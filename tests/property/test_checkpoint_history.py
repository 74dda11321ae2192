"""Whatever a training does to its tensors between saves, what is restored is what was saved."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from spotproof.checkpoint import Checkpointer, committed_steps, read_manifest, verify
from spotproof.checkpoint.manifest import manifest_key

LARGE, SMALL = 2**14, 5  # floats; the large ones are those that may be taken to be unchanging
NAMES = st.sampled_from(["a", "b", "c", "d"])


class Tensors:
    def __init__(self):
        self.state = {}

    def state_dict(self):
        return dict(self.state)

    def load_state_dict(self, state):
        self.state = state


class History(RuleBasedStateMachine):
    """A model of a run: tensors come, go, change in counted and uncounted ways; saves, restarts and losses happen."""

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.fsync, os.fsync = os.fsync, lambda fd: None  # what a power cut would leave is not the question here
        self.step = 0
        self.saved = {}
        self.live = Tensors()
        self.open()

    def open(self):
        self.checkpointer = Checkpointer(self.folder)
        self.checkpointer.register("live", self.live)

    @rule(name=NAMES, size=st.sampled_from([LARGE, SMALL, 0]), value=st.integers(0, 3))
    def put(self, name, size, value):
        self.live.state[name] = torch.full((size,), float(value))

    @rule(name=NAMES)
    def drop(self, name):
        self.live.state.pop(name, None)

    @rule(name=NAMES, value=st.integers(1, 3))
    def change(self, name, value):
        if name in self.live.state:
            self.live.state[name] += value

    @rule(name=NAMES, value=st.integers(0, 3))
    def change_uncounted(self, name, value):
        if name in self.live.state and self.live.state[name].numel():
            self.live.state[name].numpy()[-1] = value

    @rule(one=NAMES, other=NAMES)
    def tie(self, one, other):
        if one in self.live.state:
            self.live.state[other] = self.live.state[one]

    @rule(times=st.integers(1, 3))
    def save(self, times):
        for _ in range(times):
            self.step += 1
            assert self.checkpointer.save(self.step, wait=True)
            self.saved[self.step] = {name: tensor.clone() for name, tensor in self.live.state.items()}

    @rule()
    def restart(self):
        """As after a kill: the process knows nothing, and what was trained since is gone."""
        self.live.state = {}
        self.open()
        restored = self.checkpointer.restore()
        assert (restored or 0) == max(self.saved, default=0)
        self.step = restored or 0

    @rule()
    def lose_packs(self):
        """Somebody empties the folder: nothing can be restored until the next save, and from then on everything."""
        for path in self.folder.glob("packs/*"):
            path.unlink()
        for path in self.folder.glob("step-*"):
            path.unlink()
        self.saved = {}

    @invariant()
    def every_checkpoint_is_what_was_saved(self):
        storage = self.checkpointer.storage
        for step in committed_steps(storage):
            verify(storage, read_manifest(storage, manifest_key(step)))
        reader = Checkpointer(self.folder)
        newest = reader.latest()
        assert (newest.step if newest else 0) == max(self.saved, default=0)
        if newest is not None:
            found = reader.read(newest)["live"]
            wanted = self.saved[newest.step]
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    def teardown(self):
        if hasattr(self, "folder"):
            os.fsync = self.fsync
            shutil.rmtree(self.folder)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=120, stateful_step_count=20, deadline=None)
