"""A plain PyTorch loop that survives a kill at any instant: no Lightning, the same checkpoints.

    python train.py checkpoints      # kill it, start it again: it ends with the same weights

Four things have state: the model, the optimizer, the loader's position, and the random-number generators. They are
registered; `restore` sets them, `save` copies them between two steps and writes in the background.
"""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spotproof.checkpoint import Checkpointer, RngState, resumable_loader

NUM_STEPS = 200
SAVE_EVERY = 10


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches, epoch after epoch."""
    while True:
        yield from loader


def main(folder: str) -> None:
    """Train, from the newest whole checkpoint in *folder* if there is one."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    loader = resumable_loader(DataLoader(data, batch_size=64, shuffle=True))
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters())

    checkpointer = Checkpointer(folder)
    for name, part in (("model", model), ("optimizer", optimizer), ("loader", loader), ("rng", RngState())):
        checkpointer.register(name, part)
    start = checkpointer.restore() or 0
    print(f"from step {start}", flush=True)

    batches = endless(loader)
    for step in range(start, NUM_STEPS):
        inputs, targets = next(batches)
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1} loss {loss.item():.4f}", flush=True)
        if (step + 1) % SAVE_EVERY == 0:
            checkpointer.save(step + 1)
    checkpointer.close()
    weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    print(f"weights {hashlib.sha256(weights).hexdigest()[:16]}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "checkpoints")
