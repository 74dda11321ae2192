"""The lines that a script lacks so that it survives a kill: as a diff of the script itself. Pure."""

import ast
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from spotproof.project.programs import Program

__all__ = ["suggest_changes"]

_RAW = """\
Give its loader a position, register what has state, and say when a step is done:
from spotproof.checkpoint import resumable_loader
from spotproof.loop import SpotLoop

loader = resumable_loader(loader)  # the same batches; it knows its place
with SpotLoop() as spot:
    spot.register("model", model)  # optimizer, scheduler, loader, too: whatever has a state_dict
    step = spot.begin()  # last before the loop: restores, and returns the steps that are done
    ...
        spot.step_done(step)  # after each step: saves if it is time\
"""
_HUGGING_FACE = "Put SpotTrainer (from spotproof.huggingface) in the place of transformers' Trainer."
_BY_HAND = "Add SpotCheckpoint() to the Trainer's callbacks, and ckpt_path=spot.latest() to fit."


@dataclass(frozen=True, slots=True)
class _Edit:
    """Replace what is between two places by *text*. Lines from 0; columns in bytes, as ast counts."""

    begin: tuple[int, int]
    end: tuple[int, int]
    text: str


def suggest_changes(program: Program, text: str) -> str:
    """Return how *text* must change for the program to survive a kill: a unified diff, or words where none can be made.

    Empty if nothing has to change.
    """
    if program.saves:
        return ""
    if program.kind == "LightningCLI":
        edits = _cli_edits(ast.parse(text))
    elif program.kind == "Trainer":
        edits = _trainer_edits(ast.parse(text), text)
    else:
        return _HUGGING_FACE if program.kind == "HuggingFace" else _RAW
    return _diff(program.name, text, _applied(text, edits)) if edits else _BY_HAND


def _cli_edits(tree: ast.Module) -> list[_Edit]:
    edits = [
        _Edit(_begin(node), _end(node), "SpotCLI")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "LightningCLI")
        or (isinstance(node, ast.Attribute) and node.attr == "LightningCLI")
    ]
    new = "from spotproof.lightning import SpotCLI"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] == ["LightningCLI"]:
            is_renamed = node.names[0].asname is not None
            return [
                *edits,
                _Edit(_begin(node), _end(node), new + (f" as {node.names[0].asname}" if is_renamed else "")),
            ]
    return [*edits, _after_imports(tree, new)] if edits else []


def _trainer_edits(tree: ast.Module, text: str) -> list[_Edit]:
    trainer = next((call for call in _calls(tree) if _called(call) == "Trainer"), None)
    fit = next((call for call in _calls(tree) if _called(call) == "fit" and isinstance(call.func, ast.Attribute)), None)
    if trainer is None or fit is None or _scope(tree, trainer) is not _scope(tree, fit):
        return []
    statement = _statement(tree, trainer)
    line = statement.lineno - 1
    indent = " " * statement.col_offset
    edits = [
        _after_imports(tree, "from spotproof.lightning import SpotCheckpoint"),
        _Edit((line, 0), (line, 0), f"{indent}spot = SpotCheckpoint()\n"),
        _callbacks_edit(trainer, text),
    ]
    given = next((keyword for keyword in fit.keywords if keyword.arg == "ckpt_path"), None)
    if given is not None:
        edits.append(_Edit(_begin(given.value), _end(given.value), "spot.latest()"))
    else:
        edits.append(_argument(fit, "ckpt_path=spot.latest()"))
    return edits


def _callbacks_edit(trainer: ast.Call, text: str) -> _Edit:
    given = next((keyword.value for keyword in trainer.keywords if keyword.arg == "callbacks"), None)
    if given is None:
        return _argument(trainer, "callbacks=[spot]")
    if isinstance(given, ast.List):
        row, column = _begin(given)
        return _Edit((row, column + 1), (row, column + 1), "spot, " if given.elts else "spot")
    segment = ast.get_source_segment(text, given) or "callbacks"
    return _Edit(_begin(given), _end(given), f"[spot, *{segment}]")


def _argument(call: ast.Call, text: str) -> _Edit:
    """Add an argument after the last one."""
    values: Sequence[ast.expr] = [*call.args, *(keyword.value for keyword in call.keywords)]
    if not values:
        row, column = _end(call)
        return _Edit((row, column - 1), (row, column - 1), text)
    last = max(map(_end, values))
    return _Edit(last, last, f", {text}")


def _after_imports(tree: ast.Module, line: str) -> _Edit:
    rows = [node.end_lineno or node.lineno for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    document = tree.body[0].end_lineno if tree.body and ast.get_docstring(tree) is not None else 0
    row = max(rows, default=document or 0)
    return _Edit((row, 0), (row, 0), f"{line}\n")


def _applied(text: str, edits: Sequence[_Edit]) -> str:
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    for edit in sorted(edits, key=lambda edit: edit.begin, reverse=True):
        (first, begin), (last, end) = edit.begin, edit.end
        before = lines[first][:begin] if first < len(lines) else b""
        after = lines[last][end:] if last < len(lines) else b""
        lines[first : last + 1] = [before + edit.text.encode() + after]
    return b"".join(lines).decode()


def _diff(name: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, n=1, lineterm="")
    return "\n".join(lines)


def _calls(tree: ast.AST) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(calls, key=lambda node: (node.lineno, node.col_offset))


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _scope(tree: ast.Module, node: ast.AST) -> ast.AST:
    """Return the innermost function that *node* is in, or the module."""
    scope: ast.AST = tree
    for outer in ast.walk(tree):
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(
            inner is node for inner in ast.walk(outer)
        ):
            scope = outer  # ast.walk goes from the outside to the inside
    return scope


def _statement(tree: ast.Module, node: ast.AST) -> ast.stmt:
    """Return the innermost statement that *node* is in."""
    found = tree.body[0]
    for outer in ast.walk(tree):
        if isinstance(outer, ast.stmt) and any(inner is node for inner in ast.walk(outer)):
            found = outer
    return found


def _begin(node: "ast.expr | ast.stmt") -> tuple[int, int]:
    return node.lineno - 1, node.col_offset


def _end(node: "ast.expr | ast.stmt") -> tuple[int, int]:
    return (node.end_lineno or node.lineno) - 1, node.end_col_offset or 0
