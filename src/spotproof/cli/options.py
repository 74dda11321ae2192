"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Aws", "Endpoint", "JobName", "Json", "StateDir"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Endpoint = Annotated[str | None, typer.Option(help="URL of the training service. Default: see --aws.", metavar="URL")]
Aws = Annotated[
    bool,
    typer.Option("--aws", help="Speak to AWS; otherwise to AWS_ENDPOINT_URL_SAGEMAKER or the running local server."),
]
StateDir = Annotated[Path | None, typer.Option(help="The local server's state folder, if not the default.")]
JobName = Annotated[str, typer.Argument(help="The job's name, as `spotproof list` shows it.", metavar="JOB")]
