"""``list`` and ``stop``: jobs on AWS or on a running local SageMaker."""

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli.instants import parse_since
from spotproof.cli.options import Aws, Endpoint, Json, StateDir
from spotproof.contract import STEP_METRIC_NAME, TERMINAL_STATUSES
from spotproof.errors import LaunchError, SpecError

if TYPE_CHECKING:
    from spotproof.launch import TrainingService

__all__ = ["list_jobs", "stop"]

_STATUSES = ("InProgress", "Completed", "Failed", "Stopping", "Stopped")


def list_jobs(
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
    status: Annotated[str | None, typer.Option(help=f"Only those that are {', '.join(_STATUSES)}.")] = None,
    name_contains: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only those created later: 2h ago, or a time as 2026-12-01T08:00Z.")
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="Also show attempt and step; asks the service about each job.")
    ] = False,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from rich.text import Text

    from spotproof.cli.console import print_json, print_line, print_table
    from spotproof.cli.locate import open_service

    wanted = _parse_status(status)
    oldest = parse_since(since, datetime.now(timezone.utc)) if since is not None else None
    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    jobs = service.list(limit=limit, status=wanted, name_contains=name_contains, since=oldest)
    # Cheap where the service is on this machine, and AWS limits how often it may be asked.
    progress = [_progress(service, job["TrainingJobName"]) for job in jobs] if steps or service.is_local else None
    if as_json:
        print_json([{**job, **(progress[index] if progress else {})} for index, job in enumerate(jobs)])
        return
    if not jobs:
        is_filtered = wanted or name_contains or since
        print_line(f"No jobs{' like that' if is_filtered else ''} at {service.endpoint}.")
        return
    styles = {"Completed": "green", "Failed": "red", "InProgress": "cyan", "Stopped": "yellow"}
    rows = []
    for index, found in enumerate(jobs):
        end = found.get("TrainingEndTime") or datetime.now(timezone.utc)
        rows.append(
            (
                found["TrainingJobName"],
                Text(_status(found), style=styles.get(found["TrainingJobStatus"], "")),
                *([_or_dash(progress[index]["attempt"]), _or_dash(progress[index]["step"])] if progress else []),
                f"{found['CreationTime'].astimezone():%m-%d %H:%M:%S}",
                _duration(end, found["CreationTime"]),
            )
        )
    more = ("attempt", "step") if progress else ()
    print_table(("job", "status", *more, "created", "took"), rows, right=("took", *more))


def _status(found: dict[str, Any]) -> str:
    """Return the status, and what it does or how it came to that, where that says more."""
    status, secondary = found["TrainingJobStatus"], found.get("SecondaryStatus", "")
    if status == "InProgress":
        return str(secondary or status)
    return str(status) if secondary in ("", status) else f"{status}: {secondary}"


def _parse_status(text: str | None) -> str | None:
    if text is None:
        return None
    known = {status.lower(): status for status in _STATUSES}
    if text.lower() not in known:
        raise SpecError(f"--status {text!r} is none.", do=f"Choose from {', '.join(_STATUSES)}.")
    return known[text.lower()]


def _progress(service: "TrainingService", name: str) -> dict[str, int | None]:
    """Return attempt and step of a job, from its description alone."""
    description = service.describe(name)
    trained = [entry for entry in description.get("SecondaryStatusTransitions") or [] if entry["Status"] == "Training"]
    steps = [
        int(metric["Value"])
        for metric in description.get("FinalMetricDataList") or []
        if metric["MetricName"] == STEP_METRIC_NAME
    ]
    return {"attempt": len(trained) - 1 if trained else None, "step": steps[0] if steps else None}


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _duration(end: datetime, begin: datetime) -> str:
    from spotproof.report.figures import format_seconds

    return format_seconds(float(round((end - begin).total_seconds())))


def stop(
    jobs: Annotated[list[str], typer.Argument(help="Names of jobs, as `spotproof list` shows them.", metavar="JOB...")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Until they have ended; then say which step is safe in S3.")
    ] = False,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Stop jobs; each gets 120 s to save and leave."""
    from spotproof.cli.console import print_json, print_line, show_error
    from spotproof.cli.locate import open_service

    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    refused: list[LaunchError] = []
    stopped: list[str] = []
    for name in dict.fromkeys(jobs):
        try:
            service.stop(name)
        except LaunchError as error:  # the others are stopped all the same
            refused.append(error)
            continue
        stopped.append(name)
        if not as_json:
            print_line(f"{name} is being stopped; it has up to 120 s to save.")
    results = [_outcome(service, name, wait=wait) for name in stopped]
    if as_json:
        print_json(results if len(jobs) > 1 else results[0] if results else [])
    elif wait:
        for result in results:
            print_line(_words(result))
    for each in refused[:-1]:
        show_error(each)
    if refused:
        raise refused[-1]


def _outcome(service: "TrainingService", name: str, *, wait: bool) -> dict[str, Any]:
    if not wait:
        return {"job_name": name, "status": service.describe(name)["TrainingJobStatus"]}
    description = _wait_ended(service, name)
    uri = (description.get("CheckpointConfig") or {}).get("S3Uri")
    return {
        "job_name": name,
        "status": description["TrainingJobStatus"],
        "checkpoint_s3_uri": uri,
        "checkpoint_step": _safe_step(uri) if uri else None,
    }


def _wait_ended(service: "TrainingService", name: str) -> dict[str, Any]:
    while True:
        description = service.describe(name)
        if description["TrainingJobStatus"] in TERMINAL_STATUSES:
            return description
        time.sleep(service.poll_seconds)


def _safe_step(uri: str) -> int | None:
    """Return the step of the newest checkpoint in S3 that verifies."""
    from spotproof.checkpoint.choose import newest_verified
    from spotproof.storage import open_storage

    found = newest_verified(open_storage(uri))
    return found.step if found is not None else None


def _words(result: dict[str, Any]) -> str:
    name, status, uri = result["job_name"], result["status"], result["checkpoint_s3_uri"]
    if uri is None:
        return f"{name} has ended {status}. It had no checkpoint_s3_uri: nothing of it is kept."
    if result["checkpoint_step"] is None:
        return f"{name} has ended {status}. There is no whole checkpoint in {uri}."
    return f"{name} has ended {status}. Step {result['checkpoint_step']} is in {uri}, whole: a new job goes on there."
