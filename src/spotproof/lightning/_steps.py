"""How many optimizer steps a training will take, as far as it says so beforehand."""

import math
from typing import Any

__all__ = ["planned_steps"]


def planned_steps(trainer: Any) -> int | None:
    """Return after which ``global_step`` *trainer* will be done, or None if it does not say so.

    It may still end earlier, by ``max_time`` or a callback. With manual optimization steps are no batches: then only
    ``max_steps`` says it.
    """
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    is_counted = trainer.lightning_module.automatic_optimization and math.isfinite(batches)
    if is_counted and epochs is not None and epochs > 0:
        limits.append(epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    return min(limits, default=None)
