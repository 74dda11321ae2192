"""Loggers over several attempts: one curve and one table, as of an undisturbed run."""

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from spotproof.lightning import _private as private

__all__ = ["LoggersOfRun", "keep_rows", "logger_places", "logger_states"]

log = logging.getLogger(__name__)

_SPARE = ".before-resume"


def logger_places(trainer: "pl.Trainer") -> list[Any]:
    """Return for each logger what a resumed run must know before it opens it: the version, and where the rows are."""
    return [_place(logger) for logger in _own_loggers(trainer)]


def logger_states(trainer: "pl.Trainer") -> list[Any]:
    """Return the places, and what each logger holds back."""
    return [
        {**place, "held": private.csv_state(csv) if (csv := _local_csv(logger)) is not None else None}
        if (place := _place(logger)) is not None
        else None
        for logger in _own_loggers(trainer)
    ]


def _own_loggers(trainer: "pl.Trainer") -> list[Any]:
    """Return the loggers that this process writes; of several ranks, the others have dummies."""
    return list(trainer.loggers) if trainer.is_global_zero else []


def _place(logger: Any) -> dict[str, Any] | None:
    csv = _local_csv(logger)
    if csv is not None:
        return {"version": csv.version, "rows": _rows_path(csv)}
    return {"version": logger.version, "rows": None} if isinstance(logger, TensorBoardLogger) else None


def _local_csv(logger: Any) -> CSVLogger | None:
    return logger if isinstance(logger, CSVLogger) and "://" not in logger.save_dir else None


def _rows_path(logger: CSVLogger) -> str:
    return os.path.abspath(str(logger.experiment.metrics_file_path))


def keep_rows(places: list[Any]) -> None:
    """Copy the rows of earlier attempts: Lightning deletes them where it opens a logger with a fixed version again."""
    for place in places:
        path = place["rows"] if place else None
        if path is not None and os.path.exists(path):
            staged = f"{path}{_SPARE}.{os.getpid()}.tmp"  # every rank of a host does so
            shutil.copyfile(path, staged)
            os.replace(staged, path + _SPARE)


class LoggersOfRun:
    """The loggers of one ``fit``."""

    def __init__(self, trainer: "pl.Trainer", warn: Callable[[str], None]) -> None:
        self._trainer, self._warn = trainer, warn
        self._have_followed = False

    def follow(self, places: list[Any], step: int) -> None:
        """Write on where the attempt before did; what it logged at *step* and after is superseded."""
        trainer = self._trainer
        if self._have_followed or not trainer.is_global_zero:
            return
        self._have_followed = True
        followed = 0
        for logger, place in zip(trainer.loggers, places, strict=False):
            if place is not None and isinstance(logger, TensorBoardLogger):
                private.follow_tensorboard(logger, place["version"], step)
                followed += 1
            elif place is not None and (csv := _local_csv(logger)) is not None:
                private.follow_csv(csv, place["version"])
                followed += 1
        if followed == len(trainer.loggers) and step > 0:
            # They have them already; written again, TensorBoard would show a second point at step 0.
            trainer.enable_autolog_hparams = False

    def restore(self, states: list[Any]) -> None:
        """Set what :func:`logger_states` returned."""
        for logger, state in zip(_own_loggers(self._trainer), states, strict=False):
            csv = _local_csv(logger)
            if state is None or csv is None:
                continue
            path, held = _rows_path(csv), state["held"]
            if missing := private.restore_csv(csv, held, path + _SPARE):
                self._warn(
                    f"{path} lacks {missing} of the {held['rows']} rows that were logged before the interruption. It "
                    "did not survive, or came back older than the checkpoint. Keep it where the checkpoints are."
                )

    def begin(self) -> None:
        """Watch what is logged from here on, and name the loggers that can't be continued."""
        for logger in _own_loggers(self._trainer):
            if (csv := _local_csv(logger)) is not None:
                private.watch_csv(csv)
            elif not isinstance(logger, (TensorBoardLogger, DummyLogger)):
                kind = type(logger).__qualname__
                self._warn(
                    f"What {kind} has logged can't be taken back: after an interruption, steps that are computed again "
                    f"are logged again, and {kind} begins a new run unless it is told not to. Give it a fixed run id "
                    "and let it resume; TensorBoardLogger and CSVLogger are continued exactly."
                )
