"""All commands, put together. Rooms are imported by the commands that use them: ``--help`` is quick."""

from typing import Annotated

import typer

from spotproof._version import __version__
from spotproof.cli import (
    checkpoints,
    clients,
    image,
    init,
    jobs,
    launch,
    logs,
    plan,
    platform,
    prices,
    rehearse,
    report,
    schema,
    supervise,
    tensorboard,
    traces,
    uploads,
    watch,
)
from spotproof.cli.examples import format_examples

__all__ = ["app"]

app = typer.Typer(
    name="spotproof",
    help="Train on machines that can be taken away, and end with exactly the same model.",
    epilog=format_examples(""),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"spotproof {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(rehearse.demo)
app.command()(init.init)
app.command()(rehearse.rehearse)
app.command()(plan.plan)
app.command()(traces.traces)
app.command()(platform.serve)
app.command()(platform.reclaim)
app.command("env", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    clients.run_with_environment
)
app.command()(platform.faults)
app.command()(launch.launch)
app.command()(uploads.upload)
app.command()(schema.schema)
app.command()(supervise.supervise)
app.command("list")(jobs.list_jobs)
app.command()(watch.watch)
app.command()(logs.logs)
app.command()(jobs.stop)
app.command()(report.report)
app.command()(tensorboard.tensorboard)
app.add_typer(prices.app, name="prices")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(image.app, name="image")

for group, prefix in ((app, ""), (prices.app, "prices "), (checkpoints.app, "checkpoints "), (image.app, "image ")):
    for command in group.registered_commands:
        command.epilog = format_examples(prefix + str(command.name or getattr(command.callback, "__name__", "")))
