"""Attempts that write checkpoints, each in a process of its own, forked from a server that has imported torch.

The server has loaded nothing of S3: its client's threads would not survive a fork.
"""

import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import torch

from spotproof import CheckpointConflict
from spotproof.checkpoint import Checkpointer

LOCAL_CALLS = ("open", "write", "fsync", "replace", "link", "mkdir", "unlink")
S3_CALLS = ("put", "get", "head", "list", "delete")
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torch", "spotproof.checkpoint.checkpointer", "writer_process"])


class Values:
    """Something with state: two packs' worth of tensors would not do more."""

    def __init__(self):
        self.state = {}

    def set(self, value):
        self.state = {"moving": torch.full((64,), float(value)), "frozen": torch.ones(32), "step": value}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def stop_at_call(number, is_s3):
    """Make this process stop, as a machine does that is suspended, before its *number*-th call from now, from 0.

    Return what tells whether it did.
    """
    import obstore

    module, names = (obstore, S3_CALLS) if is_s3 else (os, LOCAL_CALLS)
    left = number

    def guarded(original):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == -1:
                # To this very thread: the process's own may be noticed by another, and this one go on for a moment.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return original(*args, **kwargs)

        return call

    for name in names:
        setattr(module, name, guarded(getattr(module, name)))
    return lambda: left < 0


def attempt(place, env, steps, told, stop, barrier):
    """Run one attempt: restore, save *steps*, each (step, value); tell what happened and exit as the command would."""
    os.environ.update(env)
    checkpointer = Checkpointer(place)
    checkpointer.register("values", values := Values())
    try:
        if barrier is not None:
            checkpointer.latest()
            barrier.wait()
            checkpointer.begin()
            barrier.wait()
        else:
            checkpointer.restore()
        for step, value in steps:
            values.set(value)
            has_stopped = None
            if stop is not None and step == stop[0]:
                has_stopped = stop_at_call(stop[1], place.startswith("s3://"))
            checkpointer.save(step, wait=True)
            if has_stopped is not None and not has_stopped():
                break  # the save has fewer calls
        result, code = None, 0
    except CheckpointConflict as err:
        result, code = str(err), err.exit_code
    Path(told).write_text(json.dumps([checkpointer.attempt, result]))
    os._exit(code)
