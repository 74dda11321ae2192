"""Loggers write on where an earlier attempt left off: TensorBoard's curves and CSVLogger's rows.

Source: lightning 2.6.6, ``csv_logs.py`` and ``tensorboard.py`` in ``fabric/loggers`` and ``pytorch/loggers``.
"""

import csv
import os
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

__all__ = ["csv_state", "follow_csv", "follow_tensorboard", "restore_csv", "watch_csv"]


def follow_tensorboard(logger: TensorBoardLogger, version: int | str, step: int) -> None:
    """Make *logger* write on in the folder of *version*; what was logged at *step* and after is superseded.

    Lightning opens the logger before any callback is asked, which makes an empty folder of the next version; that is
    removed. TensorBoard drops the superseded points when it reads a file that begins with the purge step.
    """
    opened = logger._experiment
    if opened is not None:
        opened.close()
        folder = logger.log_dir
        for name in logger._fs.ls(folder, detail=False):
            # Only the file just made, which holds nothing but its header, and only if the folder is not the one wanted.
            if logger.version != version and logger._fs.size(name) < 200:
                logger._fs.rm(name)
        if logger.version != version and not logger._fs.ls(folder, detail=False):
            logger._fs.rmdir(folder)
    logger._experiment = None
    logger._version = version
    logger._kwargs["purge_step"] = step


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
