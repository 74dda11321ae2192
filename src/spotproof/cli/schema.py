"""``schema``: the JSON schema of job.yaml, for editors."""

from pathlib import Path
from typing import Annotated

import typer

from spotproof.cli.options import Json
from spotproof.errors import SpecError

__all__ = ["schema"]


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to this file instead.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON schema of job.yaml.

    With it an editor completes the fields, explains them, and marks what is wrong. It is JSON with and without --json.
    """
    from spotproof.cli.console import print_line
    from spotproof.spec import format_schema

    text = format_schema()
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{output} can't be written: {error.strerror}.", do="Name another file.") from error
    print_line(f"Written: {output}", stderr=True)
