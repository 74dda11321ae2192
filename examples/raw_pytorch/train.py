"""A plain PyTorch loop that survives a kill at any instant: no Lightning, the same checkpoints.

    python train.py checkpoints      # kill it, start it again: it ends with the same weights

All there is to it: the loader gets a position (`resumable_loader`), what has state is registered with a `SpotLoop`,
and the loop says when a step is done (`step_done`). There a save is made if one is due, and after a notice (SIGTERM)
the step is saved and the program left. What stays the program's own: seeds of all
three generators, deterministic kernels.
"""

import argparse
import hashlib
import random
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

from spotproof.checkpoint import resumable_loader
from spotproof.loop import SpotLoop

NUM_EPOCHS = 4


class Digits(Dataset[tuple[torch.Tensor, int]]):
    """Handwritten digits, 8 × 8, each time moved and blurred at random."""

    def __init__(self, *, is_train: bool) -> None:
        images, labels = load_digits(return_X_y=True)
        part = slice(None, 1500) if is_train else slice(1500, None)
        self.images = torch.tensor(images[part], dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        self.labels, self.is_train = labels[part].tolist(), is_train

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.images[index]
        if self.is_train:
            image = torch.roll(image, int(torch.randint(-1, 2, ())), 2) + 0.1 * torch.randn(image.shape)
        return image, self.labels[index]


class Epoch:
    """What the loop itself must remember within an epoch."""

    def __init__(self) -> None:
        self.number, self.loss_sum, self.num_batches = 0, 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def main(folder: str, num_workers: int, save_every: int | None) -> None:
    """Train, from the newest whole checkpoint in *folder* if there is one."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    loader = resumable_loader(DataLoader(Digits(is_train=True), batch_size=100, shuffle=True, num_workers=num_workers))
    val_loader = DataLoader(Digits(is_train=False), batch_size=100)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(576, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_EPOCHS)
    scaler = torch.amp.GradScaler("cpu")
    epoch = Epoch()

    # Without a number of steps it finds the interval at which interruptions lose least.
    with SpotLoop(folder, every_n_steps=save_every, every_n_seconds=None if save_every else "auto") as spot:
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        for name, part in {**parts, "loader": loader, "epoch": epoch}.items():
            spot.register(name, part)
        step = spot.begin()
        print(f"from step {step}", flush=True)

        while epoch.number < NUM_EPOCHS:
            for images, labels in loader:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                epoch.loss_sum, epoch.num_batches = epoch.loss_sum + loss.item(), epoch.num_batches + 1
                step += 1
                print(f"step {step} loss {loss.item():.6f}", flush=True)
                spot.step_done(step, epoch=epoch.number)
            accuracy = validate(model, val_loader)
            print(f"epoch {epoch.number} loss {epoch.loss_sum / epoch.num_batches:.6f} accuracy {accuracy:.4f}")
            scheduler.step()
            epoch.number, epoch.loss_sum, epoch.num_batches = epoch.number + 1, 0.0, 0

    weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    print(f"weights {hashlib.sha256(weights).hexdigest()[:16]}")


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader[Any]) -> float:
    """Return the share of digits that are recognised."""
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in loader)
    model.train()
    return right / len(loader.dataset)  # type: ignore[arg-type]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default="checkpoints")
    parser.add_argument("--workers", type=int, default=0, help="loader workers; the same number in every attempt")
    parser.add_argument("--save-every", type=int, help="steps between saves, instead of what tunes itself")
    options = parser.parse_args()
    main(options.folder, options.workers, options.save_every)
