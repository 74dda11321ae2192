"""The number of steps that a training says beforehand is the one after which it is done."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from spotproof.events import StepsPlanned
from spotproof.lightning import SpotCheckpoint
from spotproof.lightning._steps import planned_steps
from spotproof.report import read_events
from spotproof.storage import LocalStorage


class Model(pl.LightningModule):
    """One weight."""

    def __init__(self, *, automatic=True):
        super().__init__()
        self.weight = torch.nn.Linear(1, 1)
        self.automatic_optimization = automatic

    def training_step(self, batch, _):
        loss = self.weight(batch[0]).sum()
        if not self.automatic_optimization:
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(14, 1)), batch_size=2)


QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


@pytest.mark.parametrize(
    ("limits", "planned"),
    [
        ({"max_epochs": 2}, 14),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 6),
        ({"max_steps": 5}, 5),
        ({"max_epochs": 3, "max_steps": 100, "limit_train_batches": 4}, 12),
    ],
)
def test_it_is_done_after_as_many_steps_as_it_said(tmp_path, limits, planned):
    """By epochs, by steps, with gradients of several batches."""
    trainer = pl.Trainer(callbacks=[SpotCheckpoint(tmp_path)], accelerator="cpu", **QUIET, **limits)
    trainer.fit(Model())

    told = [event.total_steps for event in read_events(LocalStorage(tmp_path)) if isinstance(event, StepsPlanned)]
    assert told == [planned]
    assert trainer.global_step == planned


def test_what_is_not_known_is_not_said(tmp_path):
    """With manual optimization batches are no steps: nothing is said."""
    trainer = pl.Trainer(callbacks=[SpotCheckpoint(tmp_path)], accelerator="cpu", max_epochs=1, **QUIET)
    trainer.fit(Model(automatic=False))
    assert planned_steps(trainer) is None
    assert not [event for event in read_events(LocalStorage(tmp_path)) if isinstance(event, StepsPlanned)]
