"""Loggers write on where an earlier attempt left off: TensorBoard's curves and CSVLogger's rows.

Source: lightning 2.6.6, ``csv_logs.py`` and ``tensorboard.py`` in ``fabric/loggers`` and ``pytorch/loggers``.
"""

import csv
import os
from collections.abc import Callable, Iterable
from typing import Any

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

__all__ = [
    "csv_state",
    "event_paths",
    "follow_csv",
    "follow_tensorboard",
    "log_dir_of",
    "restore_csv",
    "spool_tensorboard",
    "step_after",
    "tell_restart",
    "watch_csv",
    "watch_end",
]

_HEADER_ONLY_BYTES = 200


def follow_tensorboard(logger: TensorBoardLogger, version: int | str) -> None:
    """Make *logger* write on in the folder of *version*."""
    _close_unused(logger, version)
    logger._version = version


def step_after(kept: Iterable[bytes]) -> int:
    """Return the step after the last of the events in *kept*, parts of files that begin with a record; 0 for none."""
    from tensorboard.compat.proto.event_pb2 import Event

    last = -1
    for data in kept:
        end = 0
        while end + 12 < len(data):
            begin, length = end + 12, int.from_bytes(data[end : end + 8], "little")
            last = max(last, Event.FromString(bytes(data[begin : begin + length])).step)
            end = begin + length + 4
    return last + 1


def tell_restart(logger: TensorBoardLogger, step: int) -> None:
    """Write a restart at *step*: TensorBoard drops what it has read at that step and after.

    Twice, because to a TensorBoard that runs, the first start in a folder is the training's own and drops nothing.

    Source: tensorboard, ``plugin_event_accumulator.py``, ``_seen_session_start``.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    restart = Event(step=step, session_log=SessionLog(status=SessionLog.START))
    for writer in (logger.experiment.all_writers or {}).values():
        writer.event_writer.add_event(restart)
        writer.event_writer.add_event(restart)


def _close_unused(logger: TensorBoardLogger, version: int | str) -> None:
    """Take back what Lightning made when it opened the logger, before any callback was asked.

    That is a file with nothing but its header, in an empty folder of the next version.
    """
    paths, opened = event_paths(logger), logger._experiment
    logger._experiment = None
    if opened is None:
        return
    opened.close()
    for path in paths:
        files = get_filesystem(path)
        if files.exists(path) and files.size(path) < _HEADER_ONLY_BYTES:
            files.rm_file(path)
    folder = logger.log_dir
    if logger.version != version and "://" not in folder and not logger._fs.ls(folder, detail=False):
        logger._fs.rmdir(folder)


def event_paths(logger: TensorBoardLogger) -> list[str]:
    """Return the event files that *logger* has open; none with a writer that is not TensorBoard's own."""
    writers = getattr(logger._experiment, "all_writers", None) or {}
    files: list[Any] = [getattr(writer, "event_writer", None) for writer in writers.values()]
    return [file._file_name for file in files if hasattr(file, "_file_name")]


def spool_tensorboard(logger: TensorBoardLogger, folder: str) -> None:
    """Make *logger* write its events to *folder*, whatever its own place is."""
    from torch.utils.tensorboard import SummaryWriter

    _close_unused(logger, logger.version)
    logger._experiment = SummaryWriter(log_dir=folder, **logger._kwargs)
    hparams_file = os.path.join(folder, logger.NAME_HPARAMS_FILE)

    def save() -> None:
        # Lightning's own asks the logger's place at each call whether the file is there, which takes a while in S3.
        logger.experiment.flush()
        if logger.hparams and not os.path.exists(hparams_file):
            save_hparams_to_yaml(hparams_file, logger.hparams)

    logger.save = save  # type: ignore[method-assign]


def log_dir_of(logger: TensorBoardLogger, version: int | str) -> str:
    """Return the folder that *logger* would have with *version*."""
    own, logger._version = logger._version, version
    try:
        return str(logger.log_dir)
    finally:
        logger._version = own


def watch_end(logger: TensorBoardLogger, ended: Callable[[], None]) -> None:
    """Call *ended* whenever *logger* has been finalized: after each ``fit``, ``test`` and so on."""
    finalize = logger.finalize

    def finalize_and_tell(status: str) -> None:
        finalize(status)
        ended()

    logger.finalize = finalize_and_tell  # type: ignore[method-assign]


def follow_csv(logger: CSVLogger, version: int | str) -> None:
    """Make *logger* write on in the folder of *version*, once :func:`restore_csv` has told it what is there."""
    writer: Any = logger.experiment  # a new one would delete the rows that are there
    made = writer.log_dir
    if logger.version != version and not os.listdir(made):
        os.rmdir(made)
    logger._version = version
    writer.log_dir = logger.log_dir
    writer.metrics_file_path = os.path.join(logger.log_dir, writer.NAME_METRICS_FILE)
    os.makedirs(writer.log_dir, exist_ok=True)


def watch_csv(logger: CSVLogger) -> None:
    """Count the rows that *logger* writes from here on."""
    writer: Any = logger.experiment
    if hasattr(writer, "num_rows"):
        return
    writer.num_rows = 0
    save = writer.save

    def save_and_count() -> None:
        writer.num_rows += len(writer.metrics)
        save()

    writer.save = save_and_count


def csv_state(logger: CSVLogger) -> dict[str, Any]:
    """Return how many rows are in the file, and those that wait to be written."""
    writer: Any = logger.experiment
    return {"rows": writer.num_rows, "pending": list(writer.metrics), "keys": list(writer.metrics_keys)}


def restore_csv(logger: CSVLogger, state: dict[str, Any], spare: str) -> int:
    """Cut the file to the rows that it had; return how many of them are missing.

    Args:
        logger: Follows its earlier attempt.
        state: What :func:`csv_state` returned.
        spare: A copy that was made before Lightning opened the logger, which may have deleted the file.
    """
    writer: Any = logger.experiment
    path = writer.metrics_file_path
    wanted: int = state["rows"]
    found = [_rows(file) for file in (path, spare)]
    rows = next((rows for rows in found if len(rows) >= wanted), max(found, key=len))[:wanted]
    if rows:
        with open(path + ".tmp", "w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=state["keys"], restval="", extrasaction="ignore")
            table.writeheader()
            table.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".tmp", path)
    elif os.path.exists(path):
        os.remove(path)
    if os.path.exists(spare):
        os.remove(spare)
    writer.metrics, writer.metrics_keys = list(state["pending"]), list(state["keys"]) if rows else []
    writer.num_rows = len(rows)
    return wanted - len(rows)


def _rows(path: str) -> list[dict[str, str]]:
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
