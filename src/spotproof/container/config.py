"""What SageMaker lays down in ``/opt/ml/input/config``, read once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from spotproof.contract import (
    CHECKPOINT_CONFIG_FILE,
    HYPERPARAMETERS_FILE,
    INPUT_DATA_CONFIG_FILE,
    ML_ROOT,
    RESOURCE_CONFIG_FILE,
)
from spotproof.errors import SpecError

__all__ = ["ContainerConfig", "parse_config", "place_below", "read_config"]

_SINGLE_HOST = "algo-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerConfig:
    """The job as one container sees it."""

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """As in the request: on SageMaker every value is a string."""
    channels: Mapping[str, Any] = field(default_factory=dict)
    """Channel name -> its settings."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """``resourceconfig.json`` as it is; empty outside SageMaker."""
    checkpoint_path: str | None = None
    """``LocalPath`` of the CheckpointConfig; None if the job has none."""

    @property
    def current_host(self) -> str:
        return str(self.resources.get("current_host", _SINGLE_HOST))

    @property
    def hosts(self) -> list[str]:
        """All hosts, sorted, so that each host finds the same first one."""
        return sorted(map(str, self.resources.get("hosts") or [self.current_host]))


def read_config(base: Path) -> ContainerConfig:
    """Return the configuration below *base*.

    A file that is not there stands for an empty one: ``checkpointconfig.json`` exists only for jobs with a
    CheckpointConfig, and an image that is tried by hand has none at all.

    Raises:
        SpecError: A file is damaged.
    """
    return parse_config(
        hyperparameters=_read_object(base / HYPERPARAMETERS_FILE),
        channels=_read_object(base / INPUT_DATA_CONFIG_FILE),
        resources=_read_object(base / RESOURCE_CONFIG_FILE),
        checkpoints=_read_object(base / CHECKPOINT_CONFIG_FILE),
    )


def parse_config(
    *,
    hyperparameters: Mapping[str, Any],
    channels: Mapping[str, Any],
    resources: Mapping[str, Any],
    checkpoints: Mapping[str, Any],
) -> ContainerConfig:
    """Return the configuration that the four files' contents make.

    Raises:
        SpecError: ``hosts`` is no list or lacks the current host.
    """
    hosts = resources.get("hosts", [])
    current = resources.get("current_host", _SINGLE_HOST)
    if not isinstance(hosts, list) or (hosts and current not in hosts):
        raise SpecError(
            f"{RESOURCE_CONFIG_FILE} says current_host={current!r} and hosts={hosts!r}.",
            why="The current host must be one of the hosts.",
            do="The platform writes this file: if this is SageMaker, start the job again.",
        )
    path = checkpoints.get("LocalPath")
    return ContainerConfig(
        hyperparameters=hyperparameters,
        channels=channels,
        resources=resources,
        checkpoint_path=str(path) if path else None,
    )


def place_below(base: Path, path: str) -> str:
    """Return *path* with ``/opt/ml`` replaced by *base*; a path elsewhere stays."""
    try:
        return str(base / PurePosixPath(path).relative_to(ML_ROOT))
    except ValueError:
        return path


def _read_object(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as err:
        raise _damaged(path, str(err)) from err
    try:
        content = json.loads(text)
    except ValueError as err:
        raise _damaged(path, f"It is no JSON: {err}.") from err
    if not isinstance(content, dict):
        raise _damaged(path, f"It holds a {type(content).__name__} where an object is expected.")
    return content


def _damaged(path: Path, why: str) -> SpecError:
    return SpecError(
        f"{path} cannot be read.", why=why, do="The platform writes this file: start the job again, or repair it."
    )
