"""Where a job's TensorBoard files lie in S3, by what its description and its events say. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from spotproof.contract import (
    DEFAULT_CHECKPOINT_LOCAL_PATH,
    DEFAULT_TENSORBOARD_LOCAL_PATH,
    ENV_CHECKPOINT_DIR,
)
from spotproof.events import Event, LoggerOpened

__all__ = ["Board", "boards_of"]

_WORD: Final = "save_dir"
"""Of Lightning's loggers: ``logger.save_dir``, ``trainer.logger.init_args.save_dir``."""


@dataclass(frozen=True, slots=True)
class Board:
    """A place that may hold event files."""

    url: str
    """An S3 prefix, with a slash at its end."""
    origin: str
    """How it is known, for people."""


def boards_of(description: Mapping[str, Any], events: Sequence[Event] = ()) -> list[Board]:
    """Return the places to look at, the most certain first; a folder in the container counts as what it is mirrored to.

    What a job logs to a folder of its machine that is mirrored nowhere is gone with the machine, and not among them.
    """
    found: list[Board] = []
    for event in events:
        if isinstance(event, LoggerOpened):
            found += _outside(event.folder, "its logger said so", description)
    for name, value in _settings(description):
        if name.rpartition(".")[2] == _WORD:
            found += _outside(value, f"hyperparameter {name}", description)
    output = _tensorboard_output(description)
    if output is not None:
        found.append(_board(output[1], "TensorBoardOutputConfig"))
    checkpoints = _checkpoints(description)
    if checkpoints is not None:
        found.append(_board(checkpoints[1], "beside its checkpoints"))
    first: dict[str, Board] = {}
    for board in found:
        first.setdefault(board.url, board)
    return list(first.values())


def _board(url: str, origin: str) -> Board:
    return Board(url.rstrip("/") + "/", origin)


def _settings(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the hyperparameters; the SDK writes each value as JSON."""
    settings = []
    for name, text in (description.get("HyperParameters") or {}).items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        settings.append((str(name), value if isinstance(value, str) else str(text)))
    return settings


def _outside(folder: str, origin: str, description: Mapping[str, Any]) -> list[Board]:
    """Return the place in S3 that *folder* is, or is mirrored to; none if it is neither."""
    if folder.startswith("s3://"):
        return [_board(folder, origin)]
    checkpoints = _checkpoints(description)
    if checkpoints is not None:
        for written in (f"${ENV_CHECKPOINT_DIR}", f"${{{ENV_CHECKPOINT_DIR}}}"):
            folder = folder.replace(written, checkpoints[0])
    for mirrored in (checkpoints, _tensorboard_output(description)):
        if mirrored is not None and PurePosixPath(folder).is_relative_to(mirrored[0]):
            below = PurePosixPath(folder).relative_to(mirrored[0]).as_posix()
            return [_board(mirrored[1] if below == "." else f"{mirrored[1].rstrip('/')}/{below}", origin)]
    return []


def _checkpoints(description: Mapping[str, Any]) -> tuple[str, str] | None:
    config = description.get("CheckpointConfig") or {}
    uri = config.get("S3Uri")
    return None if not uri else (config.get("LocalPath") or DEFAULT_CHECKPOINT_LOCAL_PATH, uri)


def _tensorboard_output(description: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the local folder and where it goes. Source: aws/sagemaker-python-sdk, ``estimator.py``."""
    config = description.get("TensorBoardOutputConfig") or {}
    uri = config.get("S3OutputPath")
    if not uri:
        return None
    place = f"{uri.rstrip('/')}/{description.get('TrainingJobName')}/tensorboard-output"
    return config.get("LocalPath") or DEFAULT_TENSORBOARD_LOCAL_PATH, place
