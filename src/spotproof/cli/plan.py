"""``plan``: what a job will cost and by when it is done, before it is submitted."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli.options import JobFile, Overrides, Profile
from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.plan import Offer, Price, Prices
    from spotproof.spec import JobSpec

__all__ = ["plan"]

_GIVEN = "Default: measured, else assumed."


def plan(
    job: JobFile,
    work: Annotated[
        str, typer.Option(help="Undisturbed training time, as 20h, or steps, as 12000steps.", metavar="TIME")
    ],
    deadline: Annotated[
        str | None,
        typer.Option(
            help="From the submission, as 36h, or a time as 2026-12-01T08:00Z. Default: job.yaml's.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    traces: Annotated[
        list[str] | None,
        typer.Option(
            "--trace",
            help="FILE or recorded:NAME, with @price=0.97, @zone=, @speed=, @polarity=; may be repeated.",
            metavar="TRACE",
        ),
    ] = None,
    is_fitted: Annotated[
        bool, typer.Option("--fitted", help="Draw up- and down-times like the trace's, for a short record.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="File of prices. Default: what `prices update` wrote.", metavar="FILE")
    ] = None,
    spot_price: Annotated[float | None, typer.Option(help="USD per hour of one instance.", metavar="USD")] = None,
    on_demand_price: Annotated[float | None, typer.Option(help="USD per hour of one instance.", metavar="USD")] = None,
    measured: Annotated[
        str | None,
        typer.Option(
            help="What `rehearse --json` or `report --json` printed, or a place of checkpoints.", metavar="PLACE"
        ),
    ] = None,
    is_aws: Annotated[bool, typer.Option("--aws", help="An s3:// place of --measured is on AWS.")] = False,
    uptime: Annotated[
        str | None, typer.Option(help="Mean time between reclaims, without a trace.", metavar="TIME")
    ] = None,
    downtime: Annotated[
        str | None, typer.Option(help="Mean time without capacity, without a trace.", metavar="TIME")
    ] = None,
    stall: Annotated[str | None, typer.Option(help=f"A save stops training. {_GIVEN}", metavar="TIME")] = None,
    commit: Annotated[str | None, typer.Option(help=f"A save until it is committed. {_GIVEN}", metavar="TIME")] = None,
    mirror: Annotated[
        str | None, typer.Option(help="From there until it is in S3. Default: assumed.", metavar="TIME")
    ] = None,
    platform: Annotated[
        str | None, typer.Option(help="A machine until Training. Default: assumed.", metavar="TIME")
    ] = None,
    warm_up: Annotated[
        str | None, typer.Option(help=f"From Training to the first step. {_GIVEN}", metavar="TIME")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="The least P(deadline) that is acceptable.", metavar="SHARE")
    ] = 0.99,
    jobs: Annotated[int, typer.Option(help="Simulated start times.", min=1, max=10_000_000)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of everything that is random.", min=0)] = 0,
    profile: Profile = None,
    overrides: Overrides = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page to look at, without a network.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Say what a job will cost and when it is done."""
    from spotproof.cli.console import open_console, print_json
    from spotproof.spec import read_job_spec

    spec = read_job_spec(job, profile=profile, overrides=overrides or ())
    durations = {
        "stall_seconds": _seconds(stall, "--stall"),
        "commit_seconds": _seconds(commit, "--commit"),
        "mirror_seconds": _seconds(mirror, "--mirror"),
        "platform_seconds": _seconds(platform, "--platform"),
        "warm_up_seconds": _seconds(warm_up, "--warm-up"),
    }
    from spotproof.cli.prices import read_prices
    from spotproof.plan import Question, build_page, costs_of, make_plan, render_plan, to_json

    costs = costs_of(_read_measured(measured, is_aws, spec), durations)
    known = read_prices(prices)
    has_own = bool(traces) and all("@price=" in text or "@type=" in text for text in traces or [])
    is_known = on_demand_price is not None and (spot_price is not None or has_own)
    # A file that was not named need not have the type.
    is_lacking = prices is None and known is not None and not known.has(spec.instance_type)
    found_price = known.of(spec.instance_type) if known is not None and not (is_known or is_lacking) else None
    spot, on_demand = _prices_of(found_price, spot_price, on_demand_price)
    if traces and (uptime or downtime):
        raise SpecError(
            "--trace and --uptime or --downtime are given.", why="The trace says both.", do="Leave them out."
        )
    if is_fitted and not traces:
        raise SpecError("--fitted is given without a --trace.", why="There is no record to be like.", do="Add one.")
    question = Question(
        work_seconds=_work(work, costs.seconds_per_step.value if costs.seconds_per_step else None),
        deadline_seconds=_deadline_seconds(deadline, spec),
        num_instances=spec.instance_count,
        costs=costs,
        offers=_offers(spec, traces or [], is_fitted, known, spot, uptime, downtime, seed),
        on_demand=on_demand,
        confidence=confidence,
        num_jobs=jobs,
        seed=seed,
    )
    found = make_plan(question)
    if html is not None:
        _write_page(build_page(found, name=spec.name), html)
    if as_json:
        print_json({"job_name": spec.name, "instance_type": spec.instance_type, **to_json(found)})
        return
    render_plan(found, open_console())


def _write_page(page: str, path: Path) -> None:
    from spotproof.cli.console import print_line

    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"--html {path} can't be written ({error.strerror}).", do="Name another file.") from error
    print_line(f"Written: {path}", stderr=True)


def _offers(
    spec: "JobSpec",
    traces: list[str],
    is_fitted: bool,
    known: "Prices | None",
    spot: "Price | None",
    uptime: str | None,
    downtime: str | None,
    seed: int,
) -> "tuple[Offer, ...]":
    from dataclasses import replace

    from spotproof.plan import ASSUMED_DOWN, ASSUMED_UP, assumed_offer, fitted_offer, parse_offers

    if traces:
        offers = parse_offers(traces, instance_type=spec.instance_type, prices=known, spot_price=spot)
        if is_fitted:
            offers = tuple(fitted_offer(offer, spec.instance_count, seed + index) for index, offer in enumerate(offers))
        return offers
    up, down = ASSUMED_UP, ASSUMED_DOWN
    if uptime is not None:
        up = replace(up, mean_seconds=_positive_seconds(uptime, "--uptime"))
    if downtime is not None:
        down = replace(down, mean_seconds=_positive_seconds(downtime, "--downtime"))
    return (assumed_offer(up, down, seed, spot),)


def _prices_of(
    found: "Price | None", spot_usd: float | None, on_demand_usd: float | None
) -> "tuple[Price | None, Price | None]":
    """Return the spot price and the on-demand price to reckon with; an option beats what the file has."""
    from spotproof.plan import Price

    for option, usd in (("--spot-price", spot_usd), ("--on-demand-price", on_demand_usd)):
        if usd is not None and not 0 < usd < 1e6:
            raise SpecError(f"{option} {usd:g} is no price.", do=f"Give USD per hour of one instance: {option} 1.2.")
    spot = on_demand = None
    if spot_usd is not None:
        spot = Price(on_demand_usd_per_hour=None, spot_usd_per_hour=spot_usd, source="given")
    elif found is not None and found.spot_usd_per_hour is not None:
        spot = found
    if on_demand_usd is not None:
        on_demand = Price(on_demand_usd_per_hour=on_demand_usd, spot_usd_per_hour=None, source="given")
    elif found is not None and found.on_demand_usd_per_hour is not None:
        on_demand = found
    return spot, on_demand


def _read_measured(place: str | None, is_aws: bool, spec: "JobSpec") -> dict[str, Any] | None:
    """Return what an earlier run measured, as a report; None if nothing is known.

    Without *place*, what the job itself left at the local server counts, if one runs.
    """
    from spotproof.cli.locate import use_local_server
    from spotproof.cli.places import open_place
    from spotproof.report import read_events, summarize, to_json
    from spotproof.storage import open_storage

    if place is None:
        if spec.checkpoint_s3_uri is None or not use_local_server():
            return None
        try:
            events = read_events(open_storage(spec.checkpoint_s3_uri))
        except OSError:
            return None
        return to_json(summarize({}, events)) if events else None
    if Path(place).is_file():
        return _parse_report(_read(Path(place), "--measured"), place)
    if not place.startswith("s3://") and not Path(place).is_dir():
        raise SpecError(
            f"--measured {place}: there is no such file or folder.",
            do="Give a file that `spotproof rehearse --json` or `report --json` wrote, or a place of checkpoints.",
        )
    events = read_events(open_place(place, is_aws))
    if not events:
        raise SpecError(f"--measured {place} holds no events.", why="There is no events/attempt-*.jsonl in it.")
    return to_json(summarize({}, events))


def _parse_report(text: str, place: str) -> dict[str, Any]:
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise SpecError(f"--measured {place}{line}: this is no JSON.", why=f"{error}.") from error
    if not isinstance(report, dict) or "attempts" not in report:
        raise SpecError(
            f"--measured {place} is no report.",
            why="It has no `attempts`.",
            do="Write one with `spotproof rehearse --json` or `spotproof report --json`.",
        )
    return report


def _work(text: str, seconds_per_step: float | None) -> float:
    steps = re.fullmatch(r"([1-9]\d{0,11}) ?steps", text.strip(), re.ASCII)
    if steps is None:
        return _positive_seconds(text, "--work", or_else=", or steps: --work 12000steps")
    if not seconds_per_step:
        raise SpecError(
            f"--work {text}: how long a step takes is not known.",
            why="Nothing was measured.",
            do="Give --measured, or the time: --work 20h.",
        )
    return int(steps[1]) * seconds_per_step


def _deadline_seconds(text: str | None, spec: "JobSpec") -> float:
    """Return the seconds from a submission now until *text*, or what the job itself says, is past."""
    from datetime import datetime, timezone

    from spotproof.spec.deadline import parse_deadline

    if text is None and spec.deadline is None:
        raise SpecError(
            "By when it must be done is not said.",
            why="Neither --deadline is given, nor has job.yaml a deadline.",
            do="Add one: --deadline 36h.",
        )
    try:
        deadline = parse_deadline(text) if text is not None else spec.deadline
    except SpecError as error:
        raise SpecError(f"--deadline {text}: {error.what}", why=error.why, do=error.do) from error
    assert deadline is not None
    if deadline.after_seconds is not None:
        return deadline.after_seconds
    now = datetime.now(timezone.utc)
    seconds = (deadline.instant(now) - now).total_seconds()
    if seconds <= 0:
        raise SpecError(
            f"The deadline, {deadline.instant(now).isoformat()}, is past.", do="Name a later one: --deadline 36h."
        )
    return seconds


def _seconds(text: str | None, option: str) -> float | None:
    from spotproof.schedule import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError:
        raise SpecError(f"{option} {text} is no duration.", do=f"Write a number and a unit: {option} 90s.") from None


def _positive_seconds(text: str, option: str, *, or_else: str = "") -> float:
    from spotproof.schedule import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise SpecError(
            f"{option} {text} is no duration above 0.",
            do=f"Write a number and a unit, s, m, h or d: {option} 20h{or_else}.",
        )
    return seconds


def _read(path: Path, option: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{option} {path} can't be read ({reason}).", do="Give the path of a text file.") from error
