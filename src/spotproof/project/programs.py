"""Does this Python file train, how, and with which options? By its text; nothing is run. Pure."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Option", "Program", "read_program"]

Kind = Literal["SpotCLI", "LightningCLI", "Trainer", "HuggingFace", "loop"]
"""How a program trains; the surest sign comes first."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a program that uses argparse."""

    name: str
    """Without the dashes, which is how a hyperparameter names it."""
    default: object
    """A constant, or None."""
    has_value: bool
    """False for a flag: a hyperparameter always comes with a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A Python file that trains."""

    name: str
    """Its path in the project, with ``/``."""
    kind: Kind
    saves: bool
    """It uses what of Spotproof saves."""
    is_started: bool
    """It has a part that runs when it is started, and not only when it is imported."""
    has_config: bool
    """It names its configuration itself, so that no option has to."""
    is_seeded: bool
    options: tuple[Option, ...]
    modules: frozenset[str]
    """Packages that it imports, by the first part of their names."""


_SAVERS = frozenset({"SpotCLI", "SpotCheckpoint", "SpotLoop", "SpotTrainer", "SpotTrainerMixin", "Checkpointer"})


def read_program(name: str, text: str) -> Program | None:
    """Return what *text* says, or None if nothing in it trains.

    Raises:
        SyntaxError, ValueError, RecursionError: It is no Python.
    """
    tree = ast.parse(text)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    modules = frozenset(_modules(tree))
    used = set(_used_names(tree))
    called = {_last_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    methods = {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    kind: Kind
    if "SpotCLI" in used:
        kind = "SpotCLI"
    elif "LightningCLI" in used:
        kind = "LightningCLI"
    elif "transformers" in modules and ("Trainer" in called or "SpotTrainer" in called) and "train" in methods:
        kind = "HuggingFace"
    elif "Trainer" in called and "fit" in methods:
        kind = "Trainer"
    elif "torch" in modules and {"backward", "step"} <= methods:
        kind = "loop"
    else:
        return None
    return Program(
        name=name,
        kind=kind,
        saves=bool(_SAVERS & used),
        is_started=any(_is_start(node) for node in tree.body),
        has_config="default_config_files" in text or "configured_by" in methods,
        is_seeded=bool({"seed_everything", "manual_seed", "set_seed"} & (called | imported))
        or "seed_everything_default" in text,
        options=tuple(_options(tree)),
        modules=modules,
    )


def _modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _used_names(tree: ast.Module) -> Iterator[str]:
    """Yield names that are used; imported ones under the name they have where they come from."""
    renamed = {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield renamed.get(node.id, node.id)
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_start(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
    return isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call)


def _options(tree: ast.Module) -> Iterator[Option]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and _last_name(node.func) == "add_argument"):
            continue
        words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        name = next((word[2:] for word in words if word.startswith("--") and len(word) > 2), None)
        if name is None:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        default, action = given.get("default"), given.get("action")
        is_flag = isinstance(action, ast.Constant) and str(action.value).startswith(("store_", "count", "append_const"))
        value = _constant(default)
        yield Option(name, value, not is_flag)


def _constant(node: ast.expr | None) -> object:
    if node is None:
        return None
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, (bool, int, float, str)) else None
