"""Auto mode within a real training: what is measured, told, and handed on to the next attempt."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from spotproof import SpecError
from spotproof.checkpoint.journal import read_events
from spotproof.events import CheckpointCommitted, IntervalTuned
from spotproof.lightning import SpotCheckpoint
from spotproof.storage import open_storage


class Model(BoringModel):
    """Waits at step 2 until the first save is through, so that steps follow which no save falls on."""

    spot: SpotCheckpoint | None = None

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 2 and self.spot is not None:
            self.spot._checkpointer.wait()
        return super().training_step(batch, batch_idx)


def train(folder: Path, max_steps: int, **options: Any) -> list[IntervalTuned]:
    """Train a little and return what auto mode told in this attempt."""
    spot = SpotCheckpoint(folder, **options)
    ckpt_path = spot.latest()
    model = Model()
    model.spot = spot
    trainer = pl.Trainer(
        max_steps=max_steps,
        callbacks=[spot],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1,
        accelerator="cpu",
    )
    trainer.fit(model, ckpt_path=ckpt_path)
    assert spot._checkpointer.attempt is not None
    events = read_events(open_storage(folder), spot._checkpointer.attempt)
    return [event for event in events if isinstance(event, IntervalTuned)]


def test_auto_mode_measures_and_tells(tmp_path: Path) -> None:
    """The first decision names the measured save; the next attempt begins with it."""
    torch.manual_seed(0)
    told = train(tmp_path, 40)

    committed = next(e for e in read_events(open_storage(tmp_path), 0) if isinstance(e, CheckpointCommitted))
    assert told
    assert told[0].durable_seconds == pytest.approx(committed.durable_seconds)
    assert told[0].stall_seconds >= committed.stall_seconds > 0
    assert (told[0].interruptions, told[0].budget) == (0, 0.02)
    assert told[0].reason.startswith("Saving every ")

    resumed = train(tmp_path, 42, overhead_budget=0.5)

    assert resumed
    assert resumed[0].durable_seconds > 0
    assert resumed[0].budget == 0.5


def test_fixed_intervals_tell_nothing(tmp_path: Path) -> None:
    """Who says every_n_steps=3 gets it."""
    assert train(tmp_path, 20, every_n_steps=3, every_n_seconds=None) == []


def test_a_wrong_budget_is_refused_at_once(tmp_path: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(SpecError, match="overhead_budget=2"):
        SpotCheckpoint(tmp_path, overhead_budget=2)
