"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Aws", "Endpoint", "Inputs", "JobFile", "JobName", "Json", "Overrides", "Profile", "StateDir"]

JobFile = Annotated[Path, typer.Argument(help="The job's YAML file.", metavar="JOB.YAML")]
Profile = Annotated[
    str | None, typer.Option(help="One of the file's profiles, which replaces some of its fields.", metavar="NAME")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="For this run: max_run=600, hyperparameters.trainer.max_epochs=7; steps=9 is a hyperparameter, too, as "
        "no field has that name. May be repeated.",
        metavar="FIELD=VALUE",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="Data for a channel, local or s3://. May be repeated.", metavar="CHANNEL=PLACE"),
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Endpoint = Annotated[str | None, typer.Option(help="URL of the training service. Default: see --aws.", metavar="URL")]
Aws = Annotated[
    bool,
    typer.Option("--aws", help="Speak to AWS; otherwise to AWS_ENDPOINT_URL_SAGEMAKER or the running local server."),
]
StateDir = Annotated[Path | None, typer.Option(help="The local server's state folder, if not the default.")]
JobName = Annotated[str, typer.Argument(help="The job's name, as `spotproof list` shows it.", metavar="JOB")]
