"""What ``ModelCheckpoint`` and the trainer's intervals remember beyond any ``state_dict``.

Source: lightning 2.6.6, ``callbacks/model_checkpoint.py``, ``loops/training_epoch_loop.py``.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint, model_checkpoint

__all__ = ["clocks", "file_memories", "restore_clocks", "restore_file_memories"]


def file_memories(trainer: "pl.Trainer") -> list[dict[str, Any]]:
    """Return for each ModelCheckpoint whether the newest step is saved, or still to be."""
    return [
        {
            "step": callback._last_global_step_saved,
            "path": callback._last_checkpoint_saved,
            "is_owed": callback._defer_save_until_validation,
            "current_score": callback.current_score,
        }
        for callback in _file_callbacks(trainer)
    ]


def restore_file_memories(trainer: "pl.Trainer", memories: list[dict[str, Any]]) -> None:
    """Set what :func:`file_memories` returned."""
    for callback, memory in zip(_file_callbacks(trainer), memories, strict=False):
        callback._last_global_step_saved, callback._last_checkpoint_saved = memory["step"], memory["path"]
        callback._defer_save_until_validation = memory["is_owed"]
        callback.current_score = memory["current_score"]


def clocks(trainer: "pl.Trainer") -> dict[str, Any]:
    """Return the seconds since each event that an interval in time is counted from."""
    return {
        "validation": _age(getattr(trainer, "_last_val_time", None)),
        "files": [_age(callback._last_time_checked) for callback in _file_callbacks(trainer)],
    }


def restore_clocks(trainer: "pl.Trainer", ages: dict[str, Any]) -> None:
    """Let intervals go on where they were: the time without a machine does not count."""
    loop: Any = trainer
    if ages["validation"] is not None and getattr(trainer, "_val_check_time_interval", None) is not None:
        loop._last_val_time = _now() - ages["validation"]
    for callback, age in zip(_file_callbacks(trainer), ages["files"], strict=False):
        if age is not None:
            callback._last_time_checked = _now() - age


def _file_callbacks(trainer: "pl.Trainer") -> list[Any]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]


def _now() -> float:
    """Return the time of the clock that Lightning's intervals go by."""
    now: float = model_checkpoint.time.monotonic()  # type: ignore[attr-defined]
    return now


def _age(since: float | None) -> float | None:
    return None if since is None else _now() - since
