"""Hyperparameters -> the program's arguments, exactly as AWS's training toolkit makes them.

Source: aws/sagemaker-training-toolkit ``mapping.py`` (``to_cmd_args``), ``params.py``, ``environment.py``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "build_arguments",
    "decode_hyperparameters",
    "framework_parameters",
    "split_command_line",
    "user_hyperparameters",
]

_PLATFORM_PREFIX = "sagemaker_"
_PLATFORM_KEYS = frozenset({"_tuning_objective_metric", "default_user_module_name"})
_KNOWN_KEYS = frozenset(
    f"{_PLATFORM_PREFIX}{name}"
    for name in (
        "program",
        "submit_directory",
        "enable_cloudwatch_metrics",
        "container_log_level",
        "job_name",
        "region",
        "s3_output",
    )
)
_DEFAULT_COMMAND = "train"


def decode_hyperparameters(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return *raw* with each value JSON-decoded where it is JSON, and kept as it is where not.

    The Python SDK sends ``"\\"adam\\""`` with an entry point and ``"adam"`` without one: both become ``adam``.
    """
    return {name: _decode(value) for name, value in raw.items()}


def _decode(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def user_hyperparameters(decoded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that are the program's, without those that are for the platform."""
    return {
        name: value
        for name, value in decoded.items()
        if not name.startswith(_PLATFORM_PREFIX) and name not in _PLATFORM_KEYS
    }


def framework_parameters(decoded: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is for the platform and not known to the toolkit itself, such as the choice of a launcher."""
    return {
        name: value for name, value in decoded.items() if name.startswith(_PLATFORM_PREFIX) and name not in _KNOWN_KEYS
    }


def build_arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return ``--key value`` pairs sorted by key; ``-k value`` for a one-letter key."""
    arguments = []
    for name in sorted(hyperparameters):
        # The toolkit turns an empty name into an empty argument, too.
        option = f"--{name}" if len(name) > 1 else f"-{name}" if name else ""
        arguments += [option, _argument_value(hyperparameters[name])]
    return arguments


def _argument_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)


def split_command_line(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the program that *argv* names, if any, and the fixed arguments behind it.

    SageMaker runs an image with its own entrypoint as ``docker run IMAGE train``: one trailing ``train`` is that word
    and is dropped. A program whose last fixed argument is really ``train`` needs it twice.
    """
    words = list(argv)
    if words and words[-1] == _DEFAULT_COMMAND:
        words.pop()
    return (words[0], words[1:]) if words else (None, [])
