"""``serve --print-env`` and ``env``: AWS's own clients, pointed at the local platform."""

import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from spotproof.cli.locate import LocalServer, default_state_dir, find_local_server
from spotproof.errors import EngineError, SpecError
from spotproof.userdir import user_folder

__all__ = ["find_environment", "print_exports", "run_with_environment"]


def find_environment(port: int | None, state_dir: Path | None) -> dict[str, str]:
    """Return what to set for the server that runs, or that will with the same options.

    Raises:
        SpecError: The server's port can't be known.
        EngineError: The user's folder can't be written.
    """
    return _environment(_find_server(port, state_dir))


def print_exports(values: Mapping[str, str]) -> None:
    """Print the lines that a shell evaluates."""
    for name in _misleading():
        typer.echo(f"unset {name}")
    for name, value in values.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def run_with_environment(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What to run, and its arguments.")],
    port: Annotated[int | None, typer.Option(help="The port of the running server.", min=1, max=65535)] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="The running server's state folder, if not the default.")
    ] = None,
) -> None:
    """Run COMMAND against the running local server.

    AWS clients in it speak to that server and to nothing else; its exit code is passed on.
    """
    server = _find_server(port, state_dir)
    _check_runs(server.url, port, state_dir)
    dropped = _misleading()
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    environment = {**kept, **_environment(server)}
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise SpecError(
            f"{command[0]!r} can't be run:", why=f"{error.strerror}.", do="Check its name and the PATH."
        ) from error


def _find_server(port: int | None, state_dir: Path | None) -> LocalServer:
    """Return the server that runs, or what one that is started with these options will be."""
    from spotproof.local.clients import port_of

    folder = state_dir or default_state_dir()
    server = find_local_server(folder) if port is None or state_dir is not None else None
    if server is not None:
        if port not in (None, 0) and not server.url.endswith(f":{port}"):
            raise SpecError(
                f"The server on {folder} has another port than {port}:",
                why=f"it runs at {server.url}.",
                do="Leave --port out.",
            )
        return server
    if port == 0:
        raise SpecError(
            "With --port 0 the port is not known before the server runs.",
            do="Start the server first, or leave --port out: each state folder has a port of its own.",
        )
    return LocalServer(url=f"http://127.0.0.1:{port or port_of(folder)}", environment={})


def _environment(server: LocalServer) -> dict[str, str]:
    from spotproof.local.clients import client_environment, region_of, write_sdk_config
    from spotproof.local.keys import Keys, read_or_make_keys

    folder = user_folder(os.environ)
    config = write_sdk_config(folder, region_of(os.environ))
    known = server.environment
    if "AWS_SECRET_ACCESS_KEY" in known:
        keys = Keys(known["AWS_ACCESS_KEY_ID"], known["AWS_SECRET_ACCESS_KEY"])
    else:
        keys = read_or_make_keys(folder)
    return client_environment(server.url, keys, config, os.environ)


def _misleading() -> list[str]:
    from spotproof.local.clients import misleading_variables

    return misleading_variables(os.environ)


def _check_runs(url: str, port: int | None, state_dir: Path | None) -> None:
    options = (f" --port {port}" if port else "") + (f" --state-dir {state_dir}" if state_dir else "")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=10):
            return
    except (urllib.error.URLError, OSError) as error:
        raise EngineError(
            f"No local SageMaker answers at {url}.",
            why=f"{getattr(error, 'reason', error)}.",
            do=f"Start one in another shell with `spotproof serve{options}`.",
        ) from error
