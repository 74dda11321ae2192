"""Does the program write checkpoints where the service mirrors them? A look at its text; nothing is run."""

import ast
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spotproof.contract import DEFAULT_CHECKPOINT_LOCAL_PATH, ENV_CHECKPOINT_DIR

__all__ = ["SourceLook", "find_evidence", "look_at_source", "source_files"]

_NAMES: Final = frozenset({"SpotCheckpoint", "SpotCLI", "SpotLoop", "SpotTrainer", "SpotTrainerMixin", "Checkpointer"})
"""What of Spotproof saves."""
_TEXTS: Final = (DEFAULT_CHECKPOINT_LOCAL_PATH, ENV_CHECKPOINT_DIR, "checkpointconfig.json")
_PASSED_OVER: Final = frozenset(
    {"__pycache__", "node_modules", "site-packages", "venv", "env", "tests", "build", "dist"}
)
_MAX_FILES = 2000
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class SourceLook:
    """What was found in a folder."""

    num_files: int
    """Python files that could be read."""
    evidence: tuple[str, ...]
    """``train.py:12 SpotCheckpoint``: where the program uses what saves, or names the folder."""
    literal_directories: tuple[str, ...]
    """The default checkpoint folder, where the program spells it out."""


def look_at_source(folder: Path) -> SourceLook:
    """Return what the Python and YAML files below *folder* say."""
    evidence: list[str] = []
    literal: list[str] = []
    num_files = 0
    for path in source_files(folder, (".py", ".yaml", ".yml")):
        try:
            text = path.read_text(encoding="utf-8")
            found = find_evidence(text) if path.suffix == ".py" else _find_in_yaml(text)
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
            continue
        num_files += path.suffix == ".py"
        name = path.relative_to(folder).as_posix()
        for line, what in found.items():
            evidence.append(f"{name}:{line} {what}")
            if what == DEFAULT_CHECKPOINT_LOCAL_PATH:
                literal.append(f"{name}:{line}")
    return SourceLook(num_files, tuple(evidence), tuple(literal))


def _find_in_yaml(text: str) -> Mapping[int, str]:
    """LightningCLI's configuration can name the callback. A job.yaml names the folder, and proves nothing by it."""
    lines = enumerate((line.partition("#")[0] for line in text.splitlines()), 1)
    return {number: name for number, line in lines for name in _NAMES if f".{name}" in line}


def source_files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of a project with these endings, those nearest to its top first, but no tests or environments."""
    found = []
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _PASSED_OVER
            and not name.startswith(".")
            and not Path(directory, name, "pyvenv.cfg").exists()
        )
        found += [Path(directory, name) for name in sorted(names) if name.endswith(suffixes)]
        if len(found) > _MAX_FILES:
            break
    found.sort(key=lambda path: len(path.parts))
    for path in found[:_MAX_FILES]:
        try:
            is_small = path.stat().st_size <= _MAX_BYTES
        except OSError:
            continue
        if is_small:
            yield path


def find_evidence(text: str) -> Mapping[int, str]:
    """Return where a program uses what saves or names the checkpoint folder: what by line. Imports alone are no use.

    Raises:
        SyntaxError, ValueError, RecursionError: It is no Python.
    """
    tree = ast.parse(text)
    # A documentation string that mentions the folder does not write to it.
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    renamed = {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname and alias.name in _NAMES
    }
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and renamed.get(node.id, node.id) in _NAMES:
            found.setdefault(node.lineno, renamed.get(node.id, node.id))
        elif isinstance(node, ast.Attribute) and node.attr in _NAMES:
            found.setdefault(node.lineno, node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            what = next((part for part in _TEXTS if part in node.value), None)
            if what is not None:
                found.setdefault(node.lineno, what)
    return dict(sorted(found.items()))
