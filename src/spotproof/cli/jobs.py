"""``launch``, ``list``, ``logs``, ``stop``, ``report``: jobs on AWS or on a running local SageMaker."""

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.contract import TERMINAL_STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spotproof.events import Progress
    from spotproof.launch import LogLine, TrainingService
    from spotproof.report import Summary
    from spotproof.spec import JobSpec

__all__ = ["launch", "list_jobs", "logs", "report", "stop"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Endpoint = Annotated[str | None, typer.Option(help="URL of the training service. Default: see --aws.", metavar="URL")]
Aws = Annotated[
    bool,
    typer.Option("--aws", help="Speak to AWS; otherwise to AWS_ENDPOINT_URL_SAGEMAKER or the running local server."),
]
StateDir = Annotated[Path | None, typer.Option(help="The local server's state folder, if not the default.")]
JobName = Annotated[str, typer.Argument(help="The job's name, as `spotproof list` shows it.", metavar="JOB")]


def launch(
    job: Annotated[Path, typer.Argument(help="The job's YAML file.", metavar="JOB.YAML")],
    is_local: Annotated[bool, typer.Option("--local", help="Submit to the running local server, not to AWS.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show what happens until the job has ended, then its report.")
    ] = False,
    endpoint: Endpoint = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Submit a job to SageMaker, on AWS or --local."""
    from spotproof.cli.console import print_json, print_line
    from spotproof.cli.locate import open_service
    from spotproof.launch import build_request, unique_job_name, with_uploaded_inputs
    from spotproof.spec import read_job_spec

    spec = read_job_spec(job)
    name = unique_job_name(spec.name, datetime.now(timezone.utc))
    service = open_service(endpoint=endpoint, is_aws=not is_local, state_dir=state_dir)
    staged, uploads = with_uploaded_inputs(spec, job_name=name)
    if service.is_local:
        _make_buckets(service, spec)
    _tell_of_old_checkpoints(spec)
    for prefix, path in uploads.items():
        print_line(f"Uploading {path} to {prefix}", stderr=True)
        service.upload(path, prefix)
    arn = service.submit(build_request(staged, job_name=name))
    if wait:
        _wait_and_report(service, name, as_json)
    elif as_json:
        print_json({"job_name": name, "arn": arn, "endpoint": service.endpoint})
    else:
        flag = "" if service.is_local else " --aws"
        print_line(f"Submitted {name} to {service.endpoint}")
        print_line(f"Follow it: spotproof logs {name} --follow{flag}")


def _tell_of_old_checkpoints(spec: "JobSpec") -> None:
    """Say it if the job will go on from another's checkpoints: wanted or not, it should not be a surprise."""
    from spotproof.checkpoint.choose import committed_steps
    from spotproof.cli.console import print_line
    from spotproof.storage import open_storage

    if spec.checkpoint_s3_uri is None:
        return
    try:
        steps = committed_steps(open_storage(spec.checkpoint_s3_uri))
    except OSError:
        return  # the bucket is not ours to list, or not there yet: the service will say what is wrong with it
    if steps:
        print_line(
            f"{spec.checkpoint_s3_uri} holds checkpoints up to step {steps[0]}: the job will go on from there. "
            "For a fresh start name another checkpoint_s3_uri.",
            stderr=True,
            style="yellow",
        )


def _make_buckets(service: "TrainingService", spec: "JobSpec") -> None:
    from spotproof.spec import split_s3_uri

    for uri in {spec.output_path, spec.checkpoint_s3_uri or spec.output_path}:
        service.make_bucket(split_s3_uri(uri)[0])


def _wait_and_report(service: "TrainingService", name: str, as_json: bool) -> None:
    from spotproof.cli.console import open_console
    from spotproof.cli.live import LiveView
    from spotproof.cli.rehearse import show_summary
    from spotproof.rehearsal import watch_job
    from spotproof.rehearsal.watch import check_completed

    with LiveView(open_console(stderr=as_json)) as view:
        watched = watch_job(service, name, view)
    show_summary(_summarize(watched.description, watched.progress), as_json)
    check_completed(watched)


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
    from spotproof.report.render import format_seconds

    return format_seconds(float(round((end - begin).total_seconds())))


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


def report(
    job: JobName, endpoint: Endpoint = None, is_aws: Aws = False, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Show attempts, lost steps, checkpoints and savings."""
    from spotproof.cli.locate import open_service
    from spotproof.cli.rehearse import show_summary

    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    description = service.describe(job)
    from spotproof.report import read_progress

    progress = read_progress((line.at, line.message) for line in service.open_logs(job).read_new())
    show_summary(_summarize(description, progress), as_json)


def _summarize(description: dict[str, Any], progress: "Sequence[Progress]") -> "Summary":
    from spotproof.report import read_events, summarize
    from spotproof.storage import open_storage

    checkpoint_uri = (description.get("CheckpointConfig") or {}).get("S3Uri")
    events = read_events(open_storage(checkpoint_uri)) if checkpoint_uri else []
    return summarize(description, [*events, *progress])
