"""``supervise``: a run that keeps to a deadline and a budget, over as many jobs as that takes."""

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli.notes import read_note, write_note
from spotproof.cli.options import Endpoint, StateDir
from spotproof.errors import LaunchError, SpecError

if TYPE_CHECKING:
    from spotproof.launch import TrainingService
    from spotproof.spec import JobSpec
    from spotproof.storage import Storage
    from spotproof.supervise import End, Goal, RunRecord

__all__ = ["begin_run", "check_run", "goal_of", "run_name", "supervise", "supervise_run"]

_KIND = "supervised"
_MAX_RUN_NAME = 58
"""Five characters of a job's 63 are for its number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """A run and where it is recorded."""

    record: "RunRecord"
    place: str


def supervise(
    target: Annotated[
        str,
        typer.Argument(
            help="A job's YAML file to begin with; or a run's name or s3:// folder, to go on.", metavar="RUN"
        ),
    ],
    deadline: Annotated[str | None, typer.Option(help="When it must be done: 36h, or 2026-12-01T08:00Z.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="USD that it may cost at most.")] = None,
    instance_types: Annotated[
        list[str] | None,
        typer.Option("--instance-type", help="In order of preference; may be repeated. Default: the job's."),
    ] = None,
    work: Annotated[
        str | None, typer.Option(help="What undisturbed training takes at most, as 20h. Default: max_run.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="How a deadline is kept: greedy or uniform-progress (docs/plan.md).")
    ] = "greedy",
    prices: Annotated[
        Path | None, typer.Option(help="File of prices. Default: what `prices update` wrote.", metavar="FILE")
    ] = None,
    is_local: Annotated[bool, typer.Option("--local", help="On the running local server, not on AWS.")] = False,
    endpoint: Endpoint = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for each change.")] = False,
) -> None:
    """Keep a run to a deadline and a budget.

    On spot while there is slack, then on demand, from the same checkpoints.

    It may be ended and started again, here or elsewhere: the run goes on from what the service and S3 know of it.
    """
    from spotproof.cli.locate import names_endpoint, open_service

    now = datetime.now(timezone.utc)
    if not re.search(r"\.ya?ml$", target, re.IGNORECASE):
        given = {"--deadline": deadline, "--max-cost": max_cost, "--instance-type": instance_types, "--work": work}
        named = next((option for option, value in given.items() if value), None)
        if named is not None:
            raise SpecError(
                f"{named} is given for a run that has begun.",
                why="What was asked for stands in its record.",
                do="Leave it out, or begin another run with its job.yaml.",
            )
        if endpoint is None and not names_endpoint():
            _check_side(target, is_local=is_local)
        service = open_service(endpoint=endpoint, is_aws=not is_local, state_dir=state_dir)
        supervise_run(service, _find_run(target), as_json=as_json)
        return
    from spotproof.cli.launch import refuse_failed
    from spotproof.cli.uploads import read_inputs, upload_inputs
    from spotproof.launch import build_request, with_uploaded_inputs
    from spotproof.launch.preflight import check_job
    from spotproof.spec import read_job_spec, split_s3_uri
    from spotproof.spec.deadline import parse_deadline

    spec = read_job_spec(Path(target))
    asked: dict[str, Any] = {
        "deadline": parse_deadline(deadline) if deadline is not None else None,
        "max_cost_usd": max_cost,
        "instance_types": tuple(instance_types or ()) or None,
    }
    spec = spec.model_copy(update={name: value for name, value in asked.items() if value is not None})
    goal = goal_of(spec, now, prices=prices, work=work, policy=policy)
    if not goal.needs_supervision:
        raise SpecError(
            "There is neither a deadline nor a budget to keep to, nor a second instance type.",
            do="Give --deadline 36h or --max-cost 50; without any, `spotproof launch` does it.",
        )
    service = open_service(endpoint=endpoint, is_aws=not is_local, state_dir=state_dir, region=spec.region)
    check_run(spec, goal, service, now)
    found = read_inputs(spec)
    refuse_failed(Path(target), check_job(spec, service.look(spec, found, now=now)), is_strict=False)
    staged = with_uploaded_inputs(spec, {channel: files.digest for channel, files in found.items()})
    request = build_request(staged, job_name=run_name(spec, now))
    if service.is_local:
        for uri in {spec.output_path, spec.checkpoint_s3_uri or spec.output_path}:
            service.make_bucket(split_s3_uri(uri)[0])
    upload_inputs(service, request, found)
    run = begin_run(spec.output_path, request, goal, now, is_local=service.is_local)
    supervise_run(service, run, as_json=as_json)


def goal_of(
    spec: "JobSpec",
    now: datetime,
    *,
    prices: Path | None = None,
    work: str | None = None,
    policy: str = "greedy",
) -> "Goal":
    """Return what *spec* asks to be kept to, if it is submitted *now*.

    Raises:
        SpecError: An option can't be read.
    """
    from spotproof.cli.prices import highest_price, read_prices
    from spotproof.durations import parse_duration
    from spotproof.supervise import Goal, Machine

    known = read_prices(prices, spec.region)
    machines = []
    for kind in spec.instance_types or (spec.instance_type,):
        price = highest_price(known, kind)
        machines.append(
            Machine(
                instance_type=kind,
                spot_usd_per_hour=price.spot_usd_per_hour if price is not None else None,
                on_demand_usd_per_hour=price.on_demand_usd_per_hour if price is not None else None,
            )
        )
    try:
        work_seconds = parse_duration(work) if work is not None else float(spec.max_run)
    except ValueError:
        raise SpecError(f"--work {work} is no duration.", do="Write a number and a unit: --work 20h.") from None
    return Goal(
        machines=tuple(machines),
        num_instances=spec.instance_count,
        deadline_at=spec.deadline.instant(now) if spec.deadline is not None else None,
        max_cost_usd=spec.max_cost_usd,
        policy=policy if spec.use_spot_instances else "on-demand",  # type: ignore[arg-type]  # checked with the rest
        work_seconds=work_seconds,
    )


def run_name(spec: "JobSpec", now: datetime) -> str:
    """Return the name of a run that begins *now*; its jobs' names begin with it."""
    from spotproof.launch import unique_job_name

    return unique_job_name(spec.name[: _MAX_RUN_NAME - 20].rstrip("-"), now)


def check_run(spec: "JobSpec", goal: "Goal", service: "TrainingService", now: datetime) -> None:
    """Return if the goal can be kept, as far as that is known, before anything is uploaded.

    Raises:
        SpecError: It can't, or the job lacks what going on needs.
    """
    from spotproof.supervise import check_goal, times_of

    check_goal(goal, now=now, times=times_of(service))
    if spec.checkpoint_s3_uri is None:
        raise SpecError(
            "checkpoint_s3_uri is missing.",
            why="Each job of the run goes on from what the one before has left there.",
            do=f"Write checkpoint_s3_uri: {spec.output_path.rstrip('/')}/checkpoints/.",
        )


def begin_run(output_path: str, request: dict[str, Any], goal: "Goal", now: datetime, *, is_local: bool) -> _Run:
    """Write the run's record; nothing of it is submitted yet. *request* bears the run's name."""
    from spotproof.storage import open_storage
    from spotproof.supervise import RunRecord, write_record

    run = request["TrainingJobName"]
    place = _place_of(output_path, run)
    record = RunRecord(run=run, created_at=now, request=request, goal=goal)
    write_record(open_storage(place), record)
    # So that its name is enough here; the record is what counts.
    write_note(_KIND, run, {"place": place, "is_local": is_local})
    return _Run(record=record, place=place)


def _place_of(output_path: str, run: str) -> str:
    from spotproof.supervise import RECORD_FOLDER

    return f"{output_path.rstrip('/')}/{run}/{RECORD_FOLDER}"


def _find_run(target: str) -> _Run:
    """Return the run of a name that began on this machine, or of its s3:// folder."""
    from spotproof.storage import open_storage
    from spotproof.supervise import RECORD_FOLDER, read_record

    if target.startswith("s3://"):
        place = target.rstrip("/")
        place = place if place.endswith(f"/{RECORD_FOLDER}") else f"{place}/{RECORD_FOLDER}"
    else:
        place = _noted_place(target)
    return _Run(record=read_record(open_storage(place)), place=place)


def _noted_place(run: str) -> str:
    place = read_note(_KIND, run).get("place")
    if not isinstance(place, str):
        raise SpecError(
            f"No run {run!r} began on this machine.",
            do="Name its folder, s3://…/RUN (it was printed when the run began), or a job.yaml for a new run.",
        )
    return place


def _check_side(run: str, *, is_local: bool) -> None:
    """Raise if the run began elsewhere than where it is looked for: its jobs are not there, and its record is not."""
    began_local = read_note(_KIND, run).get("is_local", is_local)
    if began_local != is_local:
        raise SpecError(
            f"Run {run} began on {'the local server' if began_local else 'AWS'}.",
            why="Its jobs are there, and so is its record.",
            do="Add --local." if began_local else "Leave out --local.",
        )


def supervise_run(service: "TrainingService", run: _Run, *, as_json: bool) -> None:
    """Block until the run is over, showing what happens.

    Raises:
        LaunchError: It did not complete.
    """
    from spotproof.cli.console import print_line
    from spotproof.cli.run_teller import RunTeller, goal_words
    from spotproof.cli.watch import WatchScreen
    from spotproof.storage import open_storage
    from spotproof.supervise import Supervisor

    storage: Storage = open_storage(run.place)
    folder = run.place.rpartition("/")[0]
    flag = " --local" if service.is_local else ""
    try:
        with WatchScreen(as_json=as_json) as screen:
            screen.say(f"Run {run.record.run}, recorded in {folder}")
            screen.say(goal_words(run.record))
            told = RunTeller(run.record, screen)
            end = Supervisor(service, run.record, storage, open_storage, on_told=told).run()
    except KeyboardInterrupt:
        if not as_json:
            print_line(
                "The run's job goes on, but nobody keeps it to its deadline and budget now. "
                f"Come back: spotproof supervise {run.record.run}{flag}, elsewhere: spotproof supervise {folder}{flag}",
                stderr=True,
            )
        raise
    _check_end(run.record, end, told.spent_usd)


def _check_end(record: "RunRecord", end: "End", spent_usd: float | None) -> None:
    if end.outcome == "completed":
        return
    spent = f" after {spent_usd:.2f} USD" if spent_usd is not None else ""
    remedies = {
        "failed": f"See what it printed: spotproof list --name-contains {record.run}, then spotproof logs JOB.",
        "stopped": "Somebody stopped its job. Begin anew with the same checkpoint_s3_uri to go on.",
        "out of time": "Give it a longer max_run, and begin anew with the same checkpoint_s3_uri to go on.",
        "out of money": "Its checkpoint is in S3: begin anew with the same checkpoint_s3_uri and a larger budget.",
    }
    raise LaunchError(f"Run {record.run} ended {end.outcome}{spent}.", do=remedies[end.outcome])
