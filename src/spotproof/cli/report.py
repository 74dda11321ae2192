"""``report``: what jobs did, cost, saved and lost."""

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli.options import Aws, Endpoint, Json, StateDir
from spotproof.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spotproof.events import Event, Progress
    from spotproof.launch import TrainingService
    from spotproof.report import Curve, Summary

__all__ = ["events_of", "report", "summarize_job"]

_MAX_LOOKED_AT = 100
"""Jobs that --chain asks about, newest first: each is a question to the service."""


def report(
    jobs: Annotated[list[str], typer.Argument(help="Names of jobs; several are taken as one chain.", metavar="JOB…")],
    chain: Annotated[
        bool, typer.Option("--chain", help="Also those jobs that share its checkpoint_s3_uri, all as one.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="File of prices. Default: what `prices update` wrote.", metavar="FILE")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page to look at, without a network.")] = None,
    image: Annotated[Path | None, typer.Option(help="Draw loss against step: .png, .svg or .pdf.")] = None,
    metric: Annotated[str | None, typer.Option(help="What to draw. Default: the training loss.")] = None,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show attempts, lost steps, checkpoints, costs and savings.

    Of any job of SageMaker's, real or local: what its events and its log do not tell is left out, with the reason.
    """
    from spotproof.cli.locate import open_service
    from spotproof.report import read_progress

    if metric is not None and html is None and image is None:
        raise SpecError(f"--metric {metric} is of no use.", why="It says what is drawn.", do="Add --html or --image.")
    if image is not None:
        from spotproof.report import check_image_name

        check_image_name(image)
    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    descriptions = _descriptions(service, jobs, with_chain=chain)
    logs = {each["TrainingJobName"]: _log_of(service, each["TrainingJobName"]) for each in descriptions}
    summaries = [
        summarize_job(each, read_progress(logs[each["TrainingJobName"]]), prices, is_local=service.is_local)
        for each in descriptions
    ]
    _show(summaries, as_json)
    if html is None and image is None:
        return
    curve, no_curve = _curve(descriptions, summaries, logs, metric)
    if html is not None:
        _write_page(summaries, curve, no_curve, html)
    if image is not None:
        if curve is None:
            raise SpecError(f"--image {image} is not drawn: {no_curve}.", do=_HOW_TO_LOG)
        from spotproof.report import write_image

        write_image(curve, image)
        _say_written(image)


_HOW_TO_LOG = (
    "Let the job log to TensorBoard (logger.save_dir=s3://… or below its checkpoint folder), or give it "
    "metric_definitions: - {Name: train_loss, Regex: 'loss=([0-9.e+-]+)'}."
)


def summarize_job(
    description: "Mapping[str, Any]", progress: "Sequence[Progress]", price_file: Path | None, *, is_local: bool
) -> "Summary":
    """Return the numbers of a job from its description, the events in its checkpoint folder, and its log."""
    from spotproof.cli.prices import read_prices
    from spotproof.report import price_tag, region_of, summarize

    prices = read_prices(price_file, region_of(description))
    today = datetime.now(timezone.utc).date()
    price = price_tag(description, prices, today=today, is_local=is_local)
    return summarize(description, [*events_of(description), *progress], price=price)


def _descriptions(service: "TrainingService", names: list[str], *, with_chain: bool) -> list["Mapping[str, Any]"]:
    from spotproof.report import in_order, shares_checkpoints

    found: dict[str, Mapping[str, Any]] = {name: service.describe(name) for name in names}
    if with_chain:
        first = found[names[0]]
        if not (first.get("CheckpointConfig") or {}).get("S3Uri"):
            raise SpecError(
                f"--chain: {names[0]} has no checkpoint place, so no other job can share it.",
                do="Leave --chain out, or name the jobs that belong together.",
            )
        for each in service.list(limit=_MAX_LOOKED_AT):
            name = each["TrainingJobName"]
            if name not in found and shares_checkpoints(other := service.describe(name), first):
                found[name] = other
    return in_order(list(found.values()))


def _log_of(service: "TrainingService", name: str) -> list[tuple[datetime, str]]:
    return [(line.at, line.message) for line in service.open_logs(name).read_new()]


def events_of(description: "Mapping[str, Any]") -> list["Event"]:
    """Return the events beside a job's checkpoints; none, and a word about it, if they can't be read."""
    from spotproof.cli.console import print_line
    from spotproof.report import read_events
    from spotproof.storage import open_storage

    uri = (description.get("CheckpointConfig") or {}).get("S3Uri")
    if not uri:
        return []
    try:
        return read_events(open_storage(uri))
    except OSError as error:
        # The bucket may be gone, or not ours to read: what the service itself says is still worth a report.
        print_line(f"No events from {uri}: {error}", stderr=True, style="yellow")
        return []


def _show(summaries: list["Summary"], as_json: bool) -> None:
    from spotproof.cli.console import open_console, print_json
    from spotproof.cli.rehearse import show_summary
    from spotproof.report import chain_of, chain_to_json, render_chain

    if len(summaries) == 1:
        show_summary(summaries[0], as_json)
        return
    found = chain_of(summaries)
    if as_json:
        print_json(chain_to_json(found))
    else:
        render_chain(found, open_console())


def _curve(
    descriptions: list["Mapping[str, Any]"],
    summaries: list["Summary"],
    logs: "Mapping[str, list[tuple[datetime, str]]]",
    metric: str | None,
) -> "tuple[Curve | None, str]":
    """Return the curve, or None and why there is none."""
    from spotproof.report import Reach, choose_metric, curve_of, metric_points, stepless_metrics

    found = [metric_points(logs[each["TrainingJobName"]], each) for each in descriptions]
    source = "from the job's log, by its metric definitions"
    known = sorted({name for points in found for name in points})
    name = metric or choose_metric(known)
    if name not in known:
        in_log = known
        found = [_board_scalars(each) for each in descriptions]
        source = "from TensorBoard's event files"
        known = sorted({tag for scalars in found for tag in scalars})
        name = metric or choose_metric(known)
        if name is None or name not in known:
            there = ", ".join([*in_log, *known])
            what = f"no metric {metric!r}" if metric else "no loss"
            stepless = set().union(*(stepless_metrics(logs[each["TrainingJobName"]], each) for each in descriptions))
            if not there and stepless and (metric is None or metric in stepless):
                names = ", ".join(sorted(stepless))
                return None, f"the log tells of {names}, and of no step beside it (as step=120 in the same line)"
            return None, f"{what} is in the log or in TensorBoard files" + (f"; there are {there}" if there else "")
    reaches = {
        summary.job_name: [
            Reach(resumed_from_step=attempt.resumed_from_step, last_step=attempt.last_step)
            for attempt in summary.attempts
        ]
        for summary in summaries
    }
    points = [(each, scalars.get(name, [])) for each, scalars in zip(descriptions, found, strict=True)]
    return curve_of(name, source, points, reaches=reaches), ""


def _board_scalars(description: "Mapping[str, Any]") -> dict[str, Any]:
    from spotproof.report import boards_of, has_event_files, read_scalars
    from spotproof.storage import open_storage

    for board in boards_of(description, events_of(description)):
        try:
            storage = open_storage(board.url)
            if has_event_files(storage):
                return dict(read_scalars(storage))
        except OSError:
            continue  # a bucket that is gone, or not ours to read: the next place may do
    return {}


def _write_page(summaries: list["Summary"], curve: "Curve | None", no_curve: str, path: Path) -> None:
    from spotproof.report import build_page, chain_of

    page = build_page(chain_of(summaries), curve, no_curve=f"No curve: {no_curve}." if no_curve else "")
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"--html {path} can't be written ({error.strerror}).", do="Name another file.") from error
    _say_written(path)


def _say_written(path: Path) -> None:
    from spotproof.cli.console import print_line

    print_line(f"Written: {path}", stderr=True)
