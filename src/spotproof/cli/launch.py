"""``launch``: look before it costs anything, then submit a job to AWS or to a running local SageMaker."""

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.options import Endpoint, Inputs, JobFile, Json, Overrides, Profile, StateDir
from spotproof.errors import NotIdentical, SpecError

if TYPE_CHECKING:
    from spotproof.launch import TrainingService
    from spotproof.launch.preflight import Check
    from spotproof.spec import JobSpec

__all__ = ["launch", "refuse_failed"]

REHEARSAL_PROFILE = "rehearsal"
"""The profile with which --rehearse runs a job, if the file has it."""


def launch(
    job: JobFile,
    is_local: Annotated[bool, typer.Option("--local", help="Submit to the running local server, not to AWS.")] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the checks and the request; start and upload nothing.")
    ] = False,
    is_strict: Annotated[bool, typer.Option("--strict", help="Let warnings keep the job from being launched.")] = False,
    is_rehearsed: Annotated[
        bool,
        typer.Option("--rehearse", help="First run it here, reclaimed twice; launch only what ends identical."),
    ] = False,
    reclaim: Annotated[
        str | None,
        typer.Option(help="When --rehearse reclaims. Default: twice, in the midst of the job.", metavar="SCHEDULE"),
    ] = None,
    rehearsal_overrides: Annotated[
        list[str] | None,
        typer.Option("--rehearse-set", help="As --set, for the rehearsal alone.", metavar="FIELD=VALUE"),
    ] = None,
    profile: Profile = None,
    overrides: Overrides = None,
    inputs: Inputs = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show what happens until the job has ended, then its report.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="File of prices. Default: what `prices update` wrote.", metavar="FILE")
    ] = None,
    endpoint: Endpoint = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Check a job, then submit it to SageMaker.

    Everything that can be known beforehand is checked first: rules of the service, role, image, buckets, data, other
    jobs' checkpoints, the program's own. What fails keeps the job from being launched: exit 2, nothing was uploaded.

    A job with a deadline, max_cost_usd or several instance_types is supervised, as a run of several jobs: see
    `spotproof supervise`.
    """
    from spotproof.cli.console import print_json, print_line
    from spotproof.cli.launched import note_launched
    from spotproof.cli.locate import open_service
    from spotproof.cli.supervise import begin_run, check_run, goal_of, run_name, supervise_run
    from spotproof.cli.uploads import read_inputs, upload_inputs
    from spotproof.launch import build_request, unique_job_name, with_uploaded_inputs
    from spotproof.launch.preflight import check_job
    from spotproof.spec import read_job_spec

    if not is_rehearsed and (reclaim is not None or rehearsal_overrides):
        option = "--reclaim" if reclaim is not None else "--rehearse-set"
        raise SpecError(f"{option} is of no use.", why="It is for the rehearsal.", do="Add --rehearse.")
    spec = read_job_spec(job, profile=profile, overrides=overrides or (), inputs=inputs or ())
    rehearsal = _read_rehearsal(job, profile, overrides, inputs, rehearsal_overrides) if is_rehearsed else None
    now = datetime.now(timezone.utc)
    goal = goal_of(spec, now, prices=prices)
    name = run_name(spec, now) if goal.needs_supervision else unique_job_name(spec.name, now)
    service = open_service(endpoint=endpoint, is_aws=not is_local, state_dir=state_dir, region=spec.region)
    if goal.needs_supervision:
        check_run(spec, goal, service, now)
    found = read_inputs(spec)
    request = build_request(
        with_uploaded_inputs(spec, {channel: files.digest for channel, files in found.items()}), job_name=name
    )
    checks = check_job(spec, service.look(spec, found, now=now))
    if is_dry_run:
        _show_dry_run(checks, request, as_json)
    else:
        # What the local platform does not have need not be told at every launch.
        told = ("warning", "error") if service.is_local else ("warning", "error", "unknown")
        _show_checks([check for check in checks if check.outcome in told], is_result=False)
    refuse_failed(job, checks, is_strict=is_strict)
    if rehearsal is not None:
        _rehearse(rehearsal, reclaim, prices, as_json)
    if is_dry_run:
        return
    if service.is_local:
        _make_buckets(service, spec)
    upload_inputs(service, request, found)
    if goal.needs_supervision:
        run = begin_run(spec.output_path, request, goal, now, is_local=service.is_local)
        supervise_run(service, run, as_json=as_json)
        return
    arn = service.submit(request)
    note_launched(name, is_spot=spec.use_spot_instances)
    _verify_spot(service, name, is_asked=spec.use_spot_instances)
    if wait:
        _wait_and_report(service, name, prices, as_json)
    elif as_json:
        print_json(
            {"job_name": name, "arn": arn, "endpoint": service.endpoint, "checks": [_as_json(c) for c in checks]}
        )
    else:
        flag = "" if service.is_local else " --aws"
        print_line(f"Submitted {name} to {service.endpoint}")
        print_line(f"Follow it: spotproof watch {name}{flag}, or spotproof logs {name} --follow{flag}")


def refuse_failed(job: Path, checks: "list[Check]", *, is_strict: bool) -> None:
    """Return if no check failed.

    Raises:
        SpecError: Names what did.
    """
    from spotproof.launch.preflight import failed

    refused = failed(checks, is_strict=is_strict)
    if refused:
        subjects = ", ".join(dict.fromkeys(check.subject for check in refused))
        raise SpecError(
            f"{job} is not launched.",
            why=f"{len(refused)} of {len(checks)} checks failed: {subjects}. Nothing was uploaded or started.",
            do="Correct what they name; `spotproof launch --dry-run` checks again.",
        )


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


def _read_rehearsal(
    job: Path,
    profile: str | None,
    overrides: list[str] | None,
    inputs: list[str] | None,
    rehearsal_overrides: list[str] | None,
) -> "JobSpec":
    """Return the job as it is rehearsed, checked before anything is asked or started."""
    from spotproof.rehearsal import check_rehearsable
    from spotproof.spec import profile_names, read_job_spec

    chosen = REHEARSAL_PROFILE if REHEARSAL_PROFILE in profile_names(job) else profile
    spec = read_job_spec(
        job,
        profile=chosen,
        overrides=[*(overrides or ()), *(rehearsal_overrides or ())],
        inputs=inputs or (),
    )
    check_rehearsable(spec, give_data="--rehearse-set inputs.{channel}=FOLDER")
    return spec


def _rehearse(spec: "JobSpec", reclaim: str | None, prices: Path | None, as_json: bool) -> None:
    """Raise unless the job, killed twice, ends with the model of an undisturbed run."""
    from spotproof.cli.console import print_line
    from spotproof.cli.rehearse import run_rehearsal
    from spotproof.rehearsal import AUTO_RECLAIM

    print_line("Rehearsing it first, here:", stderr=True)
    summary = run_rehearsal(
        spec,
        reclaim or AUTO_RECLAIM,
        compare=True,
        hosts="auto",
        state_dir=None,
        as_json=as_json,
        allow_unfired=False,
        prices=prices,
        shows_json=False,
    )
    if not summary.num_resumes:
        raise NotIdentical(
            "The job is not launched: no attempt of the rehearsal went on from a checkpoint.",
            why="Each began anew, so that it ended alike says nothing of a resume.",
            do="Reclaim later (--reclaim), or save earlier; without SpotCheckpoint it never would.",
        )


def _show_dry_run(checks: "list[Check]", request: dict[str, object], as_json: bool) -> None:
    from spotproof.cli.console import print_json, print_line

    if as_json:
        print_json({"checks": [_as_json(check) for check in checks], "request": request})
        return
    _show_checks(checks, is_result=True)
    print_line("CreateTrainingJob:")
    print_json(request)


def _as_json(check: "Check") -> dict[str, str]:
    return {"subject": check.subject, "outcome": check.outcome, "text": check.text, "do": check.do}


_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "unknown": "dim"}
_SHOWN = {"ok": "ok", "warning": "warning", "error": "error", "unknown": "not seen"}


def _show_checks(checks: "list[Check]", *, is_result: bool) -> None:
    from rich.text import Text

    from spotproof.cli.console import print_table

    rows = []
    for check in checks:
        text = Text(check.text, style="dim" if check.outcome == "unknown" else "")
        if check.do:
            text.append(f"\n→ {check.do}")
        rows.append((check.subject, Text(_SHOWN[check.outcome], style=_STYLES[check.outcome]), text))
    if rows:
        print_table(("check", "", "what was found"), rows, stderr=not is_result)


def _make_buckets(service: "TrainingService", spec: "JobSpec") -> None:
    from spotproof.spec import split_s3_uri

    for uri in {spec.output_path, spec.checkpoint_s3_uri or spec.output_path}:
        service.make_bucket(split_s3_uri(uri)[0])


def _wait_and_report(service: "TrainingService", name: str, prices: Path | None, as_json: bool) -> None:
    from spotproof.cli.console import open_console
    from spotproof.cli.live import LiveView
    from spotproof.cli.rehearse import show_summary
    from spotproof.cli.report import summarize_job
    from spotproof.rehearsal import watch_job
    from spotproof.rehearsal.watch import check_completed

    with LiveView(open_console(stderr=as_json)) as view:
        watched = watch_job(service, name, view)
    show_summary(summarize_job(watched.description, watched.progress, prices, is_local=service.is_local), as_json)
    check_completed(watched)
