"""A plain loop as a user writes it, which can be told to forget something: what ``spotproof.testing`` is to find.

python plain_script.py CHECKPOINTS [optimizer | rng | step]
"""

import random
import sys
import time

import numpy as np
import torch
from torch import nn

from spotproof.checkpoint import Checkpointer, RngState

NUM_STEPS, SAVE_EVERY = 60, 4


def main(folder, forgotten=""):
    """Train."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    checkpointer = Checkpointer(folder)
    for name, part in (("model", model), ("optimizer", optimizer), ("rng", RngState())):
        if name != forgotten:
            checkpointer.register(name, part)
    start = checkpointer.restore() or 0
    if forgotten == "step":
        start = 0
    if forgotten == "everything":
        sys.exit("train: no such file")
    for step in range(start + 1, NUM_STEPS + 1):
        loss = model(torch.randn(16, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(0.01)
        if step % SAVE_EVERY == 0:
            checkpointer.save(step)
    checkpointer.save(NUM_STEPS, wait=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
