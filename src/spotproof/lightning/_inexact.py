"""What of a training can't be resumed exactly, or is not saved at all, in words for its user."""

from collections.abc import Iterator

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelPruning

from spotproof.lightning import _private as private

__all__ = ["inexact_parts", "missing_steps"]


def inexact_parts(trainer: "pl.Trainer") -> Iterator[str]:
    """Yield what is known when training begins, with the remedy."""
    if any(isinstance(each, ModelPruning) for each in trainer.callbacks):  # type: ignore[attr-defined]
        yield (
            "A resume can't be exact with ModelPruning: Lightning's checkpoints hold pruned weights without the "
            "masks, so that after a resume they train on. Prune in a training of its own, after this one."
        )
    for kind in private.data_without_position(trainer):
        yield (
            f"The position in the training data ({kind}) can't be saved: a resume within an epoch reads it again "
            "from the beginning of the epoch and drops what was trained on. That takes time, and is exact only if "
            "the same items come each time. "
            f"Give {kind} state_dict and load_state_dict, or use a map-style dataset."
        )


def missing_steps(trainer: "pl.Trainer", num_batches: int) -> str | None:
    """Return why nothing is saved though *num_batches* have gone by without an optimizer step, if that is known."""
    if trainer.lightning_module.automatic_optimization:
        return None
    return (
        f"After {num_batches} batches Lightning has counted no optimizer step, so that nothing is saved. "
        "It counts only what goes through the optimizers that self.optimizers() returns. Call step() on those, "
        "and give them to a gradient scaler: scaler.step(self.optimizers())."
    )
