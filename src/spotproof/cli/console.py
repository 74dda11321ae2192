"""Where output goes: results to stdout, what goes on and errors to stderr."""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["open_console", "print_json", "print_line", "print_table", "show_error"]


def open_console(*, stderr: bool = False) -> "Console":
    """Return a console; colours and width follow the terminal (and NO_COLOR, COLUMNS)."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # In a file or a pipe nothing needs to fit a window: rich's fallback of 80 would fold lines that scripts read.
    width = None if stream.isatty() or os.environ.get("COLUMNS") else 120
    return Console(file=stream, highlight=False, soft_wrap=False, width=width)


def print_line(text: "str | Text", *, stderr: bool = False, style: str = "") -> None:
    """Print *text* as it is, square brackets included: folded at words on a terminal, in one line for programs."""
    from rich.text import Text

    console = open_console(stderr=stderr)
    console.print(text if isinstance(text, Text) else Text(text, style=style), soft_wrap=not console.is_terminal)


def print_json(value: Any) -> None:
    """Print *value* as indented JSON; datetimes as ISO 8601."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = (), stderr: bool = False
) -> None:
    """Print a table; the columns named in *right* are flushed right. A cell may be a rich text."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    open_console(stderr=stderr).print(table)


def show_error(error: Exception) -> None:
    """Print what happened, why, and what to do, to stderr."""
    from rich.text import Text

    from spotproof.errors import SpotError

    if not isinstance(error, SpotError):
        print_line(Text.assemble(("error: ", "bold red"), str(error)), stderr=True)
        return
    text = Text.assemble(("error: ", "bold red"), (error.what, "bold"))
    if error.why:
        text.append(("" if error.why.startswith("\n") else " ") + error.why)
    if error.do:
        text.append(("" if error.why.endswith("\n") else "\n") + "  → " + error.do)
    print_line(text, stderr=True)
