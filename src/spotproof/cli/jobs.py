"""``list`` and ``stop``: jobs on AWS or on a running local SageMaker."""

from datetime import datetime, timezone
from typing import Annotated

import typer

from spotproof.cli.options import Aws, Endpoint, JobName, Json, StateDir

__all__ = ["list_jobs", "stop"]


def list_jobs(
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from rich.text import Text

    from spotproof.cli.console import print_json, print_line, print_table
    from spotproof.cli.locate import open_service

    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    jobs = service.list(limit=limit)
    if as_json:
        print_json(jobs)
        return
    if not jobs:
        print_line(f"No jobs at {service.endpoint}.")
        return
    styles = {"Completed": "green", "Failed": "red", "InProgress": "cyan"}
    rows = []
    for found in jobs:
        status = found["TrainingJobStatus"]
        end = found.get("TrainingEndTime") or datetime.now(timezone.utc)
        rows.append(
            (
                found["TrainingJobName"],
                Text(status, style=styles.get(status, "")),
                found.get("SecondaryStatus", ""),
                f"{found['CreationTime'].astimezone():%Y-%m-%d %H:%M:%S}",
                _duration(end, found["CreationTime"]),
            )
        )
    print_table(("job", "status", "doing", "created", "took"), rows, right=("took",))


def _duration(end: datetime, begin: datetime) -> str:
    from spotproof.report.figures import format_seconds

    return format_seconds(float(round((end - begin).total_seconds())))


def stop(
    job: JobName, endpoint: Endpoint = None, is_aws: Aws = False, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Stop a job; it gets 120 s to save and leave."""
    from spotproof.cli.console import print_json, print_line
    from spotproof.cli.locate import open_service

    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    service.stop(job)
    if as_json:
        print_json({"job_name": job, "status": service.describe(job)["TrainingJobStatus"]})
    else:
        print_line(f"{job} is being stopped; it has up to 120 s to save.")
