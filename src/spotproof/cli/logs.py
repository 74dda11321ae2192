"""``logs``: what a job printed, on all hosts, over all restarts."""

import json
import re
import sys
import time
from collections import deque
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.instants import parse_since
from spotproof.cli.options import Aws, Endpoint, JobName, StateDir
from spotproof.contract import TERMINAL_STATUSES
from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.launch import LogLine, LogMerge, TrainingService

__all__ = ["logs"]

_LATE_POLLS = 4
"""How late the lines of one host may come in, in readings of the log, and still be put in their place."""


def logs(
    job: JobName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, over all restarts.")
    ] = False,
    tail: Annotated[int | None, typer.Option(help="Begin with the last so many lines.", min=0)] = None,
    since: Annotated[
        str | None, typer.Option(help="Leave out what is older: 30m, 2h, or a time as 2026-12-01T08:00Z.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Only this host, for example algo-2.")] = None,
    after: Annotated[
        str | None, typer.Option(help="Go on behind the line with this token, which --json prints.", metavar="TOKEN")
    ] = None,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, each with a token for --after.")
    ] = False,
) -> None:
    """Print a job's log, of all hosts."""
    from spotproof.cli.locate import open_service
    from spotproof.launch import LogMerge, ServiceUnreachable, parse_position

    if host is not None and not re.fullmatch(r"algo-\d{1,4}", host):
        raise SpecError(f"--host {host!r} is no host.", why="A job's hosts are algo-1, algo-2, …", do="Write algo-1.")
    position = parse_position(after) if after is not None else None
    oldest = parse_since(since, datetime.now(timezone.utc)) if since is not None else None
    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    is_over = service.describe(job)["TrainingJobStatus"] in TERMINAL_STATUSES
    reader = service.open_logs(job, after=position, since=oldest)
    pause = service.poll_seconds
    merge = LogMerge(patience=timedelta(seconds=_LATE_POLLS * pause if follow else 0), after=position)
    last: deque[str] | None = deque(maxlen=tail) if tail is not None else None
    try:
        while True:
            try:
                merge.add(reader.read_new())
            except ServiceUnreachable:
                if not follow:
                    raise
                time.sleep(pause)
                continue
            is_last = is_over or not follow
            for line in merge.release(datetime.now(timezone.utc), is_over=is_last or last is not None):
                if host is None or line.host == host:
                    _print(_format(line, merge, as_json), last)
            if last is not None:  # what there was when it began; from here on, all
                sys.stdout.writelines(last)
                last = None
            sys.stdout.flush()
            if is_last:
                return
            time.sleep(pause)
            is_over = _is_over(service, job)
    except KeyboardInterrupt:
        if not as_json:
            sys.stderr.write(f"\nThe job goes on. Follow it again: spotproof logs {job} --follow --tail 20\n")
        raise


def _is_over(service: "TrainingService", job: str) -> bool:
    """Return whether the job had ended before the next reading, so that what came in until the end is still read."""
    from spotproof.launch import ServiceUnreachable

    try:
        return bool(service.describe(job)["TrainingJobStatus"] in TERMINAL_STATUSES)
    except ServiceUnreachable:
        return False


def _print(text: str, last: "deque[str] | None") -> None:
    if last is not None:
        last.append(text)
    else:
        sys.stdout.write(text)


def _format(line: "LogLine", merge: "LogMerge", as_json: bool) -> str:
    from spotproof.launch import format_position

    if not as_json:
        return f"{line.at.astimezone():%H:%M:%S} {line.host} {line.message.rstrip()}\n"
    fields = {"at": line.at.isoformat(), "host": line.host, "message": line.message}
    return json.dumps({**fields, "token": format_position(merge.position)}) + "\n"
