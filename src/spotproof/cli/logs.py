"""``logs``: what a job printed."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.options import Aws, Endpoint, JobName, Json, StateDir
from spotproof.contract import TERMINAL_STATUSES

if TYPE_CHECKING:
    from spotproof.launch import LogLine

__all__ = ["logs"]


def logs(
    job: JobName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, over all restarts.")
    ] = False,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Print a job's log."""
    from spotproof.cli.locate import open_service

    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    is_over = service.describe(job)["TrainingJobStatus"] in TERMINAL_STATUSES
    reader = service.open_logs(job)
    while True:
        for line in reader.read_new():
            _print_log_line(line, as_json)
        if is_over or not follow:
            return
        time.sleep(0.5 if service.is_local else 5.0)
        # Asked before the next reading, so that what came in until the end is still read.
        is_over = service.describe(job)["TrainingJobStatus"] in TERMINAL_STATUSES


def _print_log_line(line: "LogLine", as_json: bool) -> None:
    import json
    import sys

    if as_json:
        sys.stdout.write(json.dumps({"at": line.at.isoformat(), "host": line.host, "message": line.message}) + "\n")
    else:
        sys.stdout.write(f"{line.at.astimezone():%H:%M:%S} {line.host} {line.message.rstrip()}\n")
    sys.stdout.flush()
