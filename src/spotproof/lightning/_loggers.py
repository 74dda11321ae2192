"""Loggers over several attempts: one curve and one table, as of an undisturbed run."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from spotproof.checkpoint.journal import read_events, recorded_attempts
from spotproof.events import CheckpointCommitted, LoggerOpened
from spotproof.lightning import _private as private
from spotproof.lightning._event_files import EventFiles, put_all_aside
from spotproof.lightning._spool import Spool
from spotproof.storage import Storage, open_storage

__all__ = ["LoggersOfRun", "folders_of_unsaved", "keep_rows", "logger_places"]

log = logging.getLogger(__name__)

_SPARE = ".before-resume"
_VERSIONS = 20
"""How far to look back: each attempt that Lightning opens a logger for takes a number, whatever is logged."""
_JOB_MARK = ".spotproof-job"
"""In a logger's version folder: the job that logs there, so that an attempt without a checkpoint finds its own."""


def logger_places(trainer: "pl.Trainer") -> list[Any]:
    """Return for each logger what a resumed run must know before it opens it: the version, and where the rows are."""
    return [_place(logger) for logger in _own_loggers(trainer)]


def _own_loggers(trainer: "pl.Trainer") -> list[Any]:
    """Return the loggers that this process writes; of several ranks, the others have dummies."""
    return list(trainer.loggers) if trainer.is_global_zero else []


def _place(logger: Any) -> dict[str, Any] | None:
    csv = _local_csv(logger)
    if csv is not None:
        return {"version": csv.version, "rows": _rows_path(csv)}
    if not isinstance(logger, TensorBoardLogger):
        return None
    return {"version": logger.version, "rows": None, "is_carried": bool(private.event_paths(logger))}


def _is_in_s3(logger: Any) -> bool:
    return isinstance(logger, TensorBoardLogger) and str(logger.root_dir).startswith("s3://")


def _is_carried(logger: Any) -> bool:
    return isinstance(logger, TensorBoardLogger) and (_is_in_s3(logger) or "://" not in str(logger.root_dir))


def _version_of_job(logger: TensorBoardLogger, job_name: str) -> int | str | None:
    """Return the version in which *job_name* has logged before: the one that is given, or one of the newest."""
    newest = logger.version
    versions = range(newest, max(newest - _VERSIONS, -1), -1) if isinstance(newest, int) else [newest]
    for version in versions:
        folder = str(logger.log_dir) if version == logger.version else private.log_dir_of(logger, version)
        place = open_storage(folder)
        if place.head(_JOB_MARK) is not None and place.get(_JOB_MARK) == job_name.encode():
            return version
    return None


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


def folders_of_unsaved(storage: Storage) -> list[str]:
    """Return the folders in which the last attempt logged, if none of the attempts so far has left a checkpoint."""
    try:
        attempts = [read_events(storage, number) for number in recorded_attempts(storage)]
    except OSError:
        return []  # the first write there says what is wrong with it
    if not attempts or any(isinstance(event, CheckpointCommitted) for events in attempts for event in events):
        return []
    return [event.folder for event in attempts[-1] if isinstance(event, LoggerOpened)]


def _version_in(logger: Any, folders: list[str]) -> int | None:
    """Return the version that *logger*, if it counts its versions, had in one of *folders*."""
    root = os.path.abspath(str(logger.root_dir))
    for folder in folders:
        match = re.fullmatch(r"version_(\d+)", os.path.basename(folder))
        if match is not None and os.path.dirname(folder) == root and isinstance(logger.version, int):
            return int(match[1])
    return None


class LoggersOfRun:
    """The loggers of one ``fit``."""

    def __init__(self, trainer: "pl.Trainer", warn: Callable[[str], None]) -> None:
        self._trainer, self._warn = trainer, warn
        self._have_followed = False
        self._spools: dict[int, tempfile.TemporaryDirectory[str]] = {}
        self._event_files: dict[int, EventFiles] = {}
        self._hparams: dict[int, bytes] = {}
        """By logger, the content of hparams.yaml, which the first attempt alone writes."""
        for logger in _own_loggers(trainer):
            if _is_in_s3(logger):
                folder = tempfile.TemporaryDirectory(prefix="spotproof-tensorboard-", ignore_cleanup_errors=True)
                self._spools[id(logger)] = folder
                private.spool_tensorboard(logger, folder.name)

    def follow(self, places: list[Any], step: int) -> None:
        """Write on where the attempt before did; what it logged at *step* and after is superseded."""
        trainer = self._trainer
        if self._have_followed or not trainer.is_global_zero:
            return
        self._have_followed = True
        followed, has_hparams = 0, True
        for logger, place in zip(trainer.loggers, places, strict=False):
            if place is not None and isinstance(logger, TensorBoardLogger):
                is_carried = bool(place.get("is_carried"))
                private.follow_tensorboard(logger, place["version"])
                if (spool := self._spools.get(id(logger))) is not None:
                    private.spool_tensorboard(logger, spool.name)
                if not is_carried:
                    private.tell_restart(logger, step)
                followed += 1
                has_hparams = has_hparams and (is_carried or step > 0)
            elif place is not None and (csv := _local_csv(logger)) is not None:
                private.follow_csv(csv, place["version"])
                followed += 1
        if followed == len(trainer.loggers) and has_hparams:
            # They have them already; written again, TensorBoard would show a second point at step 0.
            trainer.enable_autolog_hparams = False

    def begin_anew(self, job_name: str | None) -> None:
        """Take up the folder in which an attempt of this job has logged that left no checkpoint, and empty it.

        Args:
            job_name: The same in all attempts of a platform's job, and in no other's; None elsewhere.
        """
        for logger in _own_loggers(self._trainer):
            if job_name is None or not _is_carried(logger):
                continue
            try:
                if (version := _version_of_job(logger, job_name)) is not None:
                    private.follow_tensorboard(logger, version)
                    if (spool := self._spools.get(id(logger))) is not None:
                        private.spool_tensorboard(logger, spool.name)
                    own = [Path(path).name for path in private.event_paths(logger)]
                    put_all_aside(open_storage(logger.log_dir), but=own)
                    private.tell_restart(logger, 0)
                else:
                    open_storage(logger.log_dir).put(_JOB_MARK, [job_name.encode()])
            except OSError as error:
                self._warn(f"{logger.log_dir} can't be looked at: {error} An earlier attempt's curve may stay there.")

    def take_up(self, folders: list[str]) -> None:
        """Log where an attempt did that left no checkpoint, and empty it: this one begins the same run anew."""
        for logger in _own_loggers(self._trainer):
            csv = _local_csv(logger)
            is_local = csv is not None or (_is_carried(logger) and not _is_in_s3(logger))
            version = _version_in(logger, folders) if is_local else None
            if version is None:
                continue
            if csv is not None:
                private.follow_csv(csv, version)
                private.restore_csv(csv, {"rows": 0, "pending": [], "keys": []}, _rows_path(csv) + _SPARE)
            else:
                private.follow_tensorboard(logger, version)
                own = [Path(path).name for path in private.event_paths(logger)]
                put_all_aside(open_storage(logger.log_dir), but=own)
                private.tell_restart(logger, 0)

    def restore(self, states: list[Any]) -> None:
        """Set what :meth:`states` returned."""
        for logger, state in zip(_own_loggers(self._trainer), states, strict=False):
            if state is None:
                continue
            if (files := self._event_files.get(id(logger))) is not None and state.get("events"):
                self._hparams[id(logger)] = state["hparams"]
                self._restore_events(logger, files, state["events"])
            csv = _local_csv(logger)
            if csv is None:
                continue
            path, held = _rows_path(csv), state["held"]
            if missing := private.restore_csv(csv, held, path + _SPARE):
                self._warn(
                    f"{path} lacks {missing} of the {held['rows']} rows that were logged before the interruption. It "
                    "did not survive, or came back older than the checkpoint. Keep it where the checkpoints are."
                )

    def _restore_events(self, logger: TensorBoardLogger, files: EventFiles, state: dict[str, Any]) -> None:
        place = open_storage(logger.log_dir)
        try:
            lost = files.restore(state, place)
            if self._hparams.get(id(logger)) and place.head(logger.NAME_HPARAMS_FILE) is None:
                place.put(logger.NAME_HPARAMS_FILE, [self._hparams[id(logger)]])
            # For who has read what is gone from the files now, or reads files that are out of our sight.
            private.tell_restart(logger, private.step_after(each["content"] for each in state.values()))
        except OSError as error:
            self._warn(f"What was logged before the interruption could not be set right in {logger.log_dir}: {error}")
            return
        if lost:
            self._warn(
                f"{logger.log_dir} lacks {lost} bytes of what was logged before the interruption. They did not "
                "survive, and are older than what a checkpoint holds. Keep the folder where the checkpoints are."
            )

    def states(self) -> list[Any]:
        """Return for each logger its place and what it holds back, as :meth:`restore` takes it."""
        return [self._state(logger) for logger in _own_loggers(self._trainer)]

    def _state(self, logger: Any) -> dict[str, Any] | None:
        place, csv = _place(logger), _local_csv(logger)
        if place is None:
            return None
        files = self._event_files.get(id(logger))
        if files is not None and logger._experiment is not None:
            logger.experiment.flush()
            files.read(private.event_paths(logger))
            hparams = files.folder / logger.NAME_HPARAMS_FILE
            if not self._hparams.get(id(logger)) and hparams.exists():
                self._hparams[id(logger)] = hparams.read_bytes()
        return {
            **place,
            "held": private.csv_state(csv) if csv is not None else None,
            "events": files.state_dict() if files is not None else None,
            "hparams": self._hparams.get(id(logger), b""),
        }

    def folders(self) -> list[tuple[str, str]]:
        """Return class and folder of each logger whose files can be looked at."""
        return [
            (type(logger).__qualname__, folder if "://" in folder else os.path.abspath(folder))
            for logger in _own_loggers(self._trainer)
            if isinstance(logger, (TensorBoardLogger, CSVLogger)) and (folder := str(logger.log_dir))
        ]

    def begin_uploads(self) -> None:
        """Bring what is logged to S3 from here on."""
        for logger in _own_loggers(self._trainer):
            if (folder := self._spools.get(id(logger))) is not None:
                spool = Spool(Path(folder.name), open_storage(logger.log_dir), self._warn)
                private.watch_end(logger, spool.drain)

    def begin(self) -> None:
        """Watch what is logged from here on, and name the loggers that can't be continued."""
        for logger in _own_loggers(self._trainer):
            if _is_carried(logger):
                folder = self._spools.get(id(logger))
                files = EventFiles(Path(folder.name if folder else logger.log_dir))
                files.read(private.event_paths(logger))
                self._event_files[id(logger)] = files
            if (csv := _local_csv(logger)) is not None:
                private.watch_csv(csv)
            elif not isinstance(logger, (TensorBoardLogger, DummyLogger)):
                kind = type(logger).__qualname__
                self._warn(
                    f"What {kind} has logged can't be taken back: after an interruption, steps that are computed again "
                    f"are logged again, and {kind} begins a new run unless it is told not to. Give it a fixed run id "
                    "and let it resume; TensorBoardLogger and CSVLogger are continued exactly."
                )
