"""``demo`` and ``rehearse``."""

import contextlib
import random
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.options import Inputs, JobFile, Json, Overrides, Profile
from spotproof.cli.own_folder import own_folder
from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.report import Summary
    from spotproof.spec import JobSpec

__all__ = ["demo", "rehearse", "run_rehearsal", "show_summary"]

DEMO_JOB = Path(__file__).parents[1] / "example" / "digits.yaml"
"""It comes along: a link to examples/cifar10 in a checkout, a copy of it in a wheel."""
DEMO_RECLAIM = "step:100,step:250"
"""Neither is at an epoch's end."""

_BLIND_RECLAIM = "step:20,step:50"
"""Where no undisturbed run tells how long the job is."""

Hosts = Annotated[str, typer.Option(help="How hosts are isolated: auto, namespace or plain.")]
Reclaim = Annotated[
    str, typer.Option(help="Interruption schedule, for example step:120,step:300 or every:60s.", metavar="SCHEDULE")
]
Compare = Annotated[bool, typer.Option(help="Also run undisturbed, and compare the models bit for bit.")]
StateDir = Annotated[Path | None, typer.Option(help="Keep the platform's state in this new folder.")]
Prices = Annotated[
    Path | None, typer.Option(help="File of prices. Default: what `prices update` wrote.", metavar="FILE")
]
AllowUnfired = Annotated[bool, typer.Option(help="Pass even if the job finished before a planned reclaim.")]


def demo(
    reclaim: Reclaim = DEMO_RECLAIM,
    compare: Compare = True,
    hosts: Hosts = "auto",
    state_dir: StateDir = None,
    prices: Prices = None,
    as_json: Json = False,
) -> None:
    """Rehearse the example: train, be reclaimed twice, compare."""
    from spotproof.spec import read_job_spec

    run_rehearsal(
        read_job_spec(DEMO_JOB), reclaim, compare, hosts, state_dir, as_json, allow_unfired=False, prices=prices
    )


def rehearse(
    job: JobFile,
    reclaim: Annotated[
        str | None,
        typer.Option(
            help="Interruption schedule, for example at:30s@grace=120. Default: auto, two reclaims in the midst of the "
            "job, whose undisturbed run comes first; step:20,step:50 with --no-compare.",
            metavar="SCHEDULE",
            show_default=False,
        ),
    ] = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Draw reclaims, and faults of all kinds, spread over the whole job.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Draw the chaos of this number again.", min=0, show_default=False)
    ] = None,
    sync_faults: Annotated[
        str | None,
        typer.Option(
            help="What goes wrong with the mirroring of checkpoints, for example torn:0.2@seed=3,late:5s.",
            metavar="FAULTS",
        ),
    ] = None,
    s3_faults: Annotated[
        str | None,
        typer.Option(
            help="What goes wrong with S3, for example error:0.05@seed=1,latency:200ms,bandwidth:5MB/s.",
            metavar="FAULTS",
        ),
    ] = None,
    compare: Compare = True,
    hosts: Hosts = "auto",
    profile: Profile = None,
    overrides: Overrides = None,
    inputs: Inputs = None,
    state_dir: StateDir = None,
    allow_unfired: AllowUnfired = False,
    prices: Prices = None,
    as_json: Json = False,
) -> None:
    """Run a job locally, really reclaim it, compare the models.

    The job runs on a local SageMaker of its own, is killed and restarted on a schedule, and its model is compared, bit
    for bit, with that of an undisturbed run. Exit 7 if they differ. --chaos does to it, besides, whatever can go wrong
    between a machine and S3.
    """
    from spotproof.rehearsal import AUTO_RECLAIM
    from spotproof.spec import read_job_spec

    spec = read_job_spec(job, profile=profile, overrides=overrides or (), inputs=inputs or ())
    if seed is not None and not chaos:
        raise SpecError(f"--seed {seed} is of no use.", why="It is the chaos that is drawn.", do="Add --chaos.")
    if chaos and seed is None:
        seed = random.SystemRandom().randrange(10**6)
    if reclaim is None and not chaos:
        reclaim = AUTO_RECLAIM if compare else _BLIND_RECLAIM
    run_rehearsal(
        spec,
        reclaim,
        compare,
        hosts,
        state_dir,
        as_json,
        allow_unfired=allow_unfired,
        chaos_seed=seed,
        sync_faults=sync_faults,
        s3_faults=s3_faults,
        prices=prices,
    )


def run_rehearsal(
    spec: "JobSpec",
    reclaim: str | None,
    compare: bool,
    hosts: str,
    state_dir: Path | None,
    as_json: bool,
    *,
    allow_unfired: bool,
    chaos_seed: int | None = None,
    sync_faults: str | None = None,
    s3_faults: str | None = None,
    prices: Path | None = None,
    shows_json: bool = True,
) -> "Summary":
    """Rehearse *spec*, print the report, judge it, and return it: any way of failing is raised.

    With *as_json* the report is JSON on stdout, and nothing without *shows_json*: the output is another command's then.
    """
    from spotproof.cli.console import open_console, print_line
    from spotproof.cli.live import LiveView
    from spotproof.cli.platform import parse_hosts
    from spotproof.cli.prices import read_prices, region_named
    from spotproof.rehearsal import judge
    from spotproof.rehearsal import rehearse as rehearse_job
    from spotproof.report import rehearsal_price_tag

    mode = parse_hosts(hosts)
    region = spec.region or region_named()
    today = datetime.now(timezone.utc).date()
    price = rehearsal_price_tag(spec.instance_type, region, read_prices(prices, region), today=today)
    try:
        with _folder(state_dir) as folder, LiveView(open_console(stderr=as_json)) as view:
            summary = rehearse_job(
                spec,
                reclaim=reclaim,
                compare=compare,
                hosts=mode,
                sync_faults=sync_faults,
                s3_faults=s3_faults,
                chaos_seed=chaos_seed,
                state_dir=folder,
                price=price,
                on_progress=view,
            )
    except KeyboardInterrupt:
        print_line("Interrupted: the job and the local SageMaker were ended.", stderr=True, style="yellow")
        raise
    if shows_json or not as_json:
        show_summary(summary, as_json)
    judge(summary, needs_all_reclaims=not allow_unfired)
    return summary


def show_summary(summary: "Summary", as_json: bool) -> None:
    """Print the report to stdout."""
    from spotproof.cli.console import open_console, print_json
    from spotproof.report import render_summary, to_json

    if as_json:
        print_json(to_json(summary))
    else:
        render_summary(summary, open_console())


@contextlib.contextmanager
def _folder(state_dir: Path | None) -> Iterator[Path]:
    if state_dir is None:
        with own_folder("spotproof-rehearsal-") as folder:
            yield folder
        return
    if state_dir.exists() and (not state_dir.is_dir() or any(state_dir.iterdir())):
        raise SpecError(
            f"--state-dir {state_dir} is not an empty folder.",
            why="A rehearsal begins with no job and no checkpoint, or it would prove nothing.",
            do="Name a new one.",
        )
    state_dir.mkdir(parents=True, exist_ok=True)
    yield state_dir.resolve()
