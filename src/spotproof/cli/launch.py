"""``launch``: submit a job to AWS or to a running local SageMaker."""

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.options import Endpoint, Json, StateDir

if TYPE_CHECKING:
    from spotproof.launch import TrainingService
    from spotproof.spec import JobSpec

__all__ = ["launch", "tell_of_old_checkpoints"]


def launch(
    job: Annotated[Path, typer.Argument(help="The job's YAML file.", metavar="JOB.YAML")],
    is_local: Annotated[bool, typer.Option("--local", help="Submit to the running local server, not to AWS.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show what happens until the job has ended, then its report.")
    ] = False,
    prices: Annotated[Path | None, typer.Option(help="File of prices, for max_cost_usd: see docs/plan.md.")] = None,
    endpoint: Endpoint = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Submit a job to SageMaker, on AWS or --local.

    One with a deadline, max_cost_usd or several instance_types is a run of several jobs: see `spotproof supervise`.
    """
    from spotproof.cli.console import print_json, print_line
    from spotproof.cli.launched import note_launched
    from spotproof.cli.locate import open_service
    from spotproof.cli.supervise import begin_run, goal_of, supervise_run
    from spotproof.launch import build_request, unique_job_name, with_uploaded_inputs
    from spotproof.spec import read_job_spec

    now = datetime.now(timezone.utc)
    spec = read_job_spec(job)
    if spec.deadline is not None or spec.max_cost_usd is not None or len(spec.instance_types) > 1:
        goal = goal_of(spec, now, prices=prices)
        service = open_service(endpoint=endpoint, is_aws=not is_local, state_dir=state_dir)
        supervise_run(service, begin_run(service, spec, goal, now), as_json=as_json)
        return
    name = unique_job_name(spec.name, now)
    service = open_service(endpoint=endpoint, is_aws=not is_local, state_dir=state_dir)
    staged, uploads = with_uploaded_inputs(spec, job_name=name)
    if service.is_local:
        _make_buckets(service, spec)
    tell_of_old_checkpoints(spec)
    for prefix, path in uploads.items():
        print_line(f"Uploading {path} to {prefix}", stderr=True)
        service.upload(path, prefix)
    arn = service.submit(build_request(staged, job_name=name))
    note_launched(name, is_spot=spec.use_spot_instances)
    _verify_spot(service, name, is_asked=spec.use_spot_instances)
    if wait:
        _wait_and_report(service, name, as_json)
    elif as_json:
        print_json({"job_name": name, "arn": arn, "endpoint": service.endpoint})
    else:
        flag = "" if service.is_local else " --aws"
        print_line(f"Submitted {name} to {service.endpoint}")
        print_line(f"Follow it: spotproof watch {name}{flag}, or spotproof logs {name} --follow{flag}")


def _verify_spot(service: "TrainingService", name: str, *, is_asked: bool) -> None:
    """Say it if the service does not do what was asked: on demand costs three times as much, and looks the same."""
    from spotproof.cli.console import print_line

    if is_asked and not service.describe(name).get("EnableManagedSpotTraining"):
        print_line(
            f"{name} was submitted for spot, and the service runs it on demand, at the full price. "
            f"Stop it: spotproof stop {name}",
            stderr=True,
            style="bold yellow",
        )


def tell_of_old_checkpoints(spec: "JobSpec") -> None:
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
    from spotproof.cli.report import summarize_job
    from spotproof.rehearsal import watch_job
    from spotproof.rehearsal.watch import check_completed

    with LiveView(open_console(stderr=as_json)) as view:
        watched = watch_job(service, name, view)
    show_summary(summarize_job(watched.description, watched.progress), as_json)
    check_completed(watched)
