"""A Lightning Fabric loop that survives a kill at any instant.

    python train.py checkpoints      # kill it, start it again: it ends with the same weights

What makes it so: `resumable_loader` around what `setup_dataloaders` returns, and a `SpotLoop` that knows the parts
and is told when a step is done. Everything else is plain Fabric.
"""

import argparse
import hashlib

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

from spotproof.checkpoint import resumable_loader
from spotproof.loop import SpotLoop

NUM_EPOCHS, ACCUMULATE = 4, 2


class Digits(Dataset[tuple[torch.Tensor, int]]):
    """Handwritten digits, 8 × 8, each time with other noise."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images, self.labels = torch.tensor(images, dtype=torch.float32) / 16, labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index] + 0.1 * torch.randn(64), self.labels[index]


def main(folder: str, num_workers: int, save_every: int | None) -> None:
    """Train, from the newest whole checkpoint in *folder* if there is one."""
    fabric = L.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model, optimizer = fabric.setup(model, optimizer)
    loader = DataLoader(Digits(), batch_size=64, shuffle=True, drop_last=True, num_workers=num_workers)
    loader = resumable_loader(fabric.setup_dataloaders(loader))
    num_steps = NUM_EPOCHS * (len(loader) // ACCUMULATE)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=num_steps)

    with SpotLoop(folder, every_n_steps=save_every, every_n_seconds=None if save_every else "auto") as spot:
        for name, part in {"model": model, "optimizer": optimizer, "scheduler": scheduler, "loader": loader}.items():
            spot.register(name, part)
        step = spot.begin()
        print(f"from step {step}", flush=True)

        while step < num_steps:
            for batch_index, (images, labels) in enumerate(loader):
                is_accumulating = batch_index % ACCUMULATE != ACCUMULATE - 1
                with fabric.no_backward_sync(model, enabled=is_accumulating):
                    loss = nn.functional.cross_entropy(model(images), labels)
                    fabric.backward(loss / ACCUMULATE)
                if is_accumulating:
                    continue
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                step += 1
                print(f"step {step} loss {loss.item():.6f} rate {scheduler.get_last_lr()[0]:.3e}", flush=True)
                spot.step_done(step)  # here nothing is half done: no gradients wait

    weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    print(f"weights {hashlib.sha256(weights).hexdigest()[:16]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default="checkpoints")
    parser.add_argument("--workers", type=int, default=0, help="loader workers; the same number in every attempt")
    parser.add_argument("--save-every", type=int, help="steps between saves, instead of what tunes itself")
    options = parser.parse_args()
    main(options.folder, options.workers, options.save_every)
