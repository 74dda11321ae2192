"""What the command line says in place of job.yaml: ``--set``, ``--input``, ``--profile``. Pure, but for the paths.

A name is a field (``max_run``), something in a field (``hyperparameters.trainer.max_epochs``, ``environment.DEBUG``,
``inputs.training``, ``inputs.training.distribution``, ``tags.team``), or else a hyperparameter (``steps``).
"""

import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from spotproof.errors import SpecError
from spotproof.spec.data import Channel
from spotproof.spec.job import JobSpec
from spotproof.spec.not_here import NOT_HERE
from spotproof.spec.part import GivenText
from spotproof.spec.yaml_file import FieldPath

__all__ = ["Override", "apply_override", "merge_fields", "parse_input", "parse_override"]

_MAPPINGS = ("hyperparameters", "environment", "tags")
_EXCLUSIVE = ("instance_type", "instance_types")


@dataclass(frozen=True, slots=True)
class Override:
    """One value of the command line."""

    option: str
    """As messages name it: ``--set max_run``. Without the value, which may be a secret."""
    path: FieldPath
    value: GivenText


def parse_override(text: str, hyperparameters: Collection[str] = ()) -> Override:
    """Return what ``--set NAME=VALUE`` says.

    Args:
        text: The option's value.
        hyperparameters: Names that the file has.

    Raises:
        SpecError: It has another form, or NAME is nearly a field.
    """
    name, value = _split(text, "--set")
    path = _find_path(name, hyperparameters)
    option = f"--set {name}"
    if path in (("source_dir",), *[("inputs", *path[1:2]), ("inputs", *path[1:2], "s3_uri")]):
        value = _from_here(value)
    return Override(option, path, GivenText(value))


def parse_input(text: str) -> Override:
    """Return what ``--input CHANNEL=PLACE`` says; a local path is relative to the working directory.

    Raises:
        SpecError: It has another form.
    """
    name, value = _split(text, "--input")
    return Override(f"--input {name}", ("inputs", name), GivenText(_from_here(value)))


def _split(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.strip() or not equals:
        raise SpecError(f"{option} {text!r} names no value.", do=f"Write {option} NAME=VALUE.")
    return name.strip(), value


def _from_here(place: str) -> str:
    is_path = bool(place) and "://" not in place and not place.startswith("{")
    return os.path.abspath(os.path.expanduser(place)) if is_path else place


def _find_path(name: str, hyperparameters: Collection[str]) -> FieldPath:
    first, dot, rest = name.partition(".")
    fields = JobSpec.model_fields
    if dot and not rest:
        raise SpecError(f"--set {name}: a name is missing after the dot.", do=f"Write --set {name}NAME=VALUE.")
    if not dot and first in fields:
        return (first,)
    if first in _MAPPINGS:
        return (first, rest)
    if first == "inputs":
        channel, inner_dot, inner = rest.rpartition(".")
        return (first, channel, inner) if inner_dot and inner in Channel.model_fields else (first, rest)
    if first == "tensorboard_output_config":
        return (first, rest)
    if name in hyperparameters:
        return ("hyperparameters", name)
    if first in fields:
        raise SpecError(
            f"--set {name}: {first} has no {rest}.",
            do=f"Write --set {first}=VALUE, or --set hyperparameters.{name}=VALUE for a hyperparameter of that name.",
        )
    if first == "profiles":
        raise SpecError("--set changes no profile.", do="Choose one with --profile NAME, and --set the field itself.")
    if name in NOT_HERE:
        raise SpecError(f"--set {name}: there is no such field.", do=NOT_HERE[name])
    close = difflib.get_close_matches(first, fields, n=1, cutoff=0.78)
    if close and not dot:
        raise SpecError(
            f"--set {name}: there is no such field.",
            why=f"Did you mean {close[0]!r}?",
            do=f"For a hyperparameter of that name write --set hyperparameters.{name}=VALUE.",
        )
    return ("hyperparameters", name)


def apply_override(fields: Mapping[str, Any], override: Override) -> dict[str, Any]:
    """Return *fields* with the value in its place."""
    value: Any = override.value
    *outer, last = override.path
    if override.path[0] == "inputs" and len(override.path) == 3:
        channels = fields.get("inputs")
        channel = channels.get(override.path[1]) if isinstance(channels, Mapping) else None
        if isinstance(channel, str):  # its short form
            value = {"s3_uri": channel, last: value}
            *outer, last = override.path[:2]
    value = {last: value}
    for name in reversed(outer):
        value = {name: value}
    return merge_fields(fields, value)


def merge_fields(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return *base* with what *over* says: mappings go into mappings, all else replaces, and None takes away."""
    merged = dict(base)
    for chosen, other in (_EXCLUSIVE, _EXCLUSIVE[::-1]):
        if chosen in over and other not in over:
            merged.pop(other, None)
    for name, value in over.items():
        before = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = merge_fields(before, value)
        else:
            merged[name] = value
    return merged
