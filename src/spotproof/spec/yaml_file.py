"""A YAML mapping, and where in the file each of its fields stands."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotproof.errors import SpecError

__all__ = ["FieldPath", "Mark", "YamlFile", "parse_yaml", "read_text"]

FieldPath = tuple[str, ...]
"""A field and what it is in: ``("inputs", "training", "s3_uri")``. List items are numbered from 0."""

_MAX_NODES = 100_000
_MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value comes from: a place in the file, or an option of the command line."""

    line: int = 0
    """From 1; 0 if it is not from the file."""
    column: int = 0
    """From 1."""
    option: str = ""
    """For example ``--set max_run``."""

    def __str__(self) -> str:
        return self.option or f"line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file says."""

    fields: dict[str, Any]
    marks: dict[FieldPath, Mark]
    """Where each field's name stands, or each list item."""
    value_marks: dict[FieldPath, Mark]
    """Where its value stands."""


def read_text(path: Path) -> str:
    """Return the text of the file at *path*.

    Raises:
        SpecError: There is no such text file.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(
            f"There is no file {path}.", do="Give the path of a job.yaml, or make one with `spotproof init`."
        ) from error
    except IsADirectoryError as error:
        raise SpecError(f"{path} is a folder.", do=f"Give the file in it, for example {path / 'job.yaml'}.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is no text file (UTF-8).", do="Give the path of a job.yaml.") from error
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read: {error.strerror}.", do=f"Is the path right, and may {_user()} read it?"
        ) from error


def _user() -> str:
    return f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"


def parse_yaml(text: str, source: str) -> YamlFile:
    """Return the mapping in *text*.

    Raises:
        SpecError: It is no YAML, no mapping, has a field twice or refers to itself; names line and column.
    """
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        _check_size(root, source)
        marks: dict[FieldPath, Mark] = {}
        value_marks: dict[FieldPath, Mark] = {}
        if isinstance(root, yaml.MappingNode):
            for path, key, value in _walk(root, ()):
                if path in marks:
                    first = marks[path].line
                    raise SpecError(
                        f"{source}, {_mark(key)}, {'.'.join(path)}: it is given twice, first in line {first}.",
                        why="YAML would silently take the last.",
                        do="Remove one.",
                    )
                marks[path], value_marks[path] = _mark(key), _mark(value)
        fields = loader.construct_document(root) if root is not None else None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise SpecError(
            f"{source}{where}: this is no YAML: {reason}.", do="Correct the line or the one before it."
        ) from error
    except RecursionError as error:
        raise SpecError(f"{source} is nested too deeply.", do="A job has few levels.") from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(root, yaml.MappingNode) or not isinstance(fields, dict):
        found = "empty" if fields is None else f"a {type(fields).__name__}, not a mapping"
        raise SpecError(f"{source} is {found}.", do="Write 'field: value' lines; the fields are the Estimator's words.")
    not_text = [key for key in fields if not isinstance(key, str)]
    if not_text:
        raise SpecError(f"{source}: {not_text[0]!r} is no field.", do="Remove it.")
    return YamlFile(fields, marks, value_marks)


def _mark(node: Any) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _check_size(root: Any, source: str) -> None:
    """An alias may stand for what it is in, or for ever more of itself."""
    import yaml

    pending = [(root, 0)]
    num_nodes = 0
    while pending:
        node, depth = pending.pop()
        num_nodes += 1
        if num_nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise SpecError(
                f"{source} is nested too deeply or too large.", do="Does an alias (*name) stand inside what it names?"
            )
        if isinstance(node, yaml.MappingNode):
            pending += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += [(child, depth + 1) for child in node.value]


def _walk(node: Any, prefix: FieldPath) -> Iterator[tuple[FieldPath, Any, Any]]:
    """Yield path, key and value of all fields and list items below *node*. What is merged in (<<) has no place here."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                path = (*prefix, str(key.value))
                yield path, key, value
                yield from _walk(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            path = (*prefix, str(index))
            yield path, value, value
            yield from _walk(value, path)
