"""``serve``, ``reclaim`` and ``faults``: the local SageMaker as a server of its own."""

import gc
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.local import Image, LocalSageMaker

HostMode = Literal["auto", "namespace", "plain"]

__all__ = ["S3Faults", "SyncFaults", "faults", "parse_hosts", "reclaim", "serve"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Endpoint = Annotated[str | None, typer.Option(help="URL of the local server.", metavar="URL")]
StateDir = Annotated[Path | None, typer.Option(help="The local server's state folder, if not the default.")]
SyncFaults = Annotated[
    str, typer.Option(help="What goes wrong with the mirroring of checkpoints, for example torn:0.2@seed=3,late:5s.")
]
S3Faults = Annotated[
    str, typer.Option(help="What goes wrong with S3, for example error:0.05@seed=1,latency:200ms,bandwidth:5MB/s.")
]


def serve(
    port: Annotated[
        int | None,
        typer.Option(
            help="TCP port on 127.0.0.1; 0 takes a free one. Default: one that belongs to the state folder.",
            min=0,
            max=65535,
            show_default=False,
        ),
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where jobs and buckets are kept.")] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            help='URI=FOLDER:COMMAND: what an image holds, for example img=src:"python train.py"; '
            "or a YAML file of many, {URI: {folder: …, command: …}}.",
        ),
    ] = None,
    reclaim: Annotated[str, typer.Option(help="Interruption schedule for all spot jobs.")] = "none",
    sync_faults: SyncFaults = "none",
    s3_faults: S3Faults = "none",
    hosts: Annotated[str, typer.Option(help="How hosts are isolated: auto, namespace or plain.")] = "auto",
    is_print_env: Annotated[
        bool,
        typer.Option(
            "--print-env", help="Only print the export lines for AWS clients, for the shell's eval; then end."
        ),
    ] = False,
    host_memory: Annotated[
        str | None, typer.Option(help="Memory of each host, for example 4GiB; otherwise all there is.", metavar="SIZE")
    ] = None,
    host_cpus: Annotated[float | None, typer.Option(help="CPUs of each host, for example 1; otherwise all.")] = None,
    capacity: Annotated[
        int | None,
        typer.Option(help="Hosts that jobs share; further jobs wait. Default: 8, or the cores if more.", min=1),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="What runs images that are not mapped: docker, podman, auto for one that answers, none.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Run a local SageMaker until Ctrl-C."""
    from spotproof.cli.clients import find_environment, print_exports
    from spotproof.cli.console import open_console, print_json, print_line
    from spotproof.cli.locate import default_state_dir
    from spotproof.engine import parse_engine
    from spotproof.local import DEFAULT_CAPACITY, LocalSageMaker
    from spotproof.local.clients import port_of
    from spotproof.rehearsal import only_aws_settings

    if is_print_env:
        values = find_environment(port, state_dir)
        print_json(values) if as_json else print_exports(values)
        return
    folder = state_dir or default_state_dir()
    closing = threading.Event()
    # Only a flag: the clean-up below runs once and whole, however often Ctrl-C is pressed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: closing.set())
    chosen_port = port_of(folder) if port is None else port
    platform = LocalSageMaker(
        folder,
        port=chosen_port,
        images=_read_images(images or []),
        reclaim=reclaim,
        hosts=parse_hosts(hosts),
        sync_faults=sync_faults,
        s3_faults=s3_faults,
        host_memory=host_memory,
        host_cpus=host_cpus,
        capacity=capacity or DEFAULT_CAPACITY,
        engine=parse_engine(engine),
    )
    with only_aws_settings({}), platform:
        # A full collection holds up every request, and would look through all that has been imported each time.
        gc.freeze()
        if as_json:
            environment = platform.environment()
            runner = platform.engine and {"kind": platform.engine.kind, "version": platform.engine.version}
            print_json({"url": platform.url, "s3_url": platform.s3_url, "environment": environment, "engine": runner})
        else:
            print_line(f"Local SageMaker ready at {platform.url} (state in {folder})")
            if platform.engine is not None:
                print_line(f"Images that {platform.engine} has are run as they are", stderr=True)
            hints = open_console(stderr=True)
            if hints.is_terminal:
                options = ("" if port in (None, 0) else f" --port {port}") + (
                    f" --state-dir {folder}" if state_dir else ""
                )
                hints.print("For AWS clients in another shell:", style="dim")
                hints.print(f'  eval "$(spotproof serve --print-env{options})"', style="dim", soft_wrap=True)
                hints.print("Ctrl-C ends it; jobs and buckets stay for the next start.", style="dim")
        threading.Thread(target=_set_when_closed, args=(platform, closing), daemon=True).start()
        closing.wait()


def _read_images(texts: Sequence[str]) -> "dict[str, Image]":
    from spotproof.local import parse_image, read_images

    images: dict[str, Image] = {}
    for text in texts:
        images.update(read_images(Path(text)) if Path(text).is_file() else [parse_image(text)])
    return images


def parse_hosts(text: str) -> HostMode:
    """Return how hosts are isolated.

    Raises:
        SpecError: *text* names no such way.
    """
    known: dict[str, HostMode] = {"auto": "auto", "namespace": "namespace", "plain": "plain"}
    if text not in known:
        raise SpecError(f"--hosts {text!r} is unknown.", do="Write auto, namespace or plain.")
    return known[text]


def _set_when_closed(platform: "LocalSageMaker", closing: threading.Event) -> None:
    platform.wait_closed()
    closing.set()


def reclaim(
    job: Annotated[str, typer.Argument(help="The job's name, as `spotproof list` shows it.", metavar="JOB")],
    grace: Annotated[
        str, typer.Option(help="From SIGTERM to SIGKILL, up to 120s; 0 is SIGKILL alone.", metavar="DURATION")
    ] = "0",
    away: Annotated[
        str | None,
        typer.Option(help="Until there is capacity again: 60, 90s, 2m.", metavar="DURATION", show_default=False),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="The machine that is lost at once, without notice, such as algo-2; the rest follows after the grace.",
            show_default=False,
        ),
    ] = None,
    endpoint: Endpoint = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Take the machines of a running spot job away, now."""
    from spotproof.cli.console import print_json, print_line
    from spotproof.cli.locate import ask_controls

    grace_seconds = _read_seconds("--grace", grace)
    away_seconds = None if away is None else _read_seconds("--away", away)
    fields = {"TrainingJobName": job, "GraceSeconds": grace_seconds, "AwaySeconds": away_seconds, "Host": host}
    answer = ask_controls("reclaim", fields, endpoint=endpoint, state_dir=state_dir)
    if as_json:
        print_json({"job_name": job, **answer})
    else:
        when = f"will be taken away in {grace_seconds:g} s at the latest" if grace_seconds else "were taken away"
        print_line(f"The machines of {job} {when}; it will restart.")


def _read_seconds(option: str, text: str) -> float:
    """Return the seconds in ``120``, as schedules write a grace, or in ``2m``."""
    from spotproof.durations import parse_duration

    try:
        return parse_duration(text if text.strip()[-1:].isalpha() else f"{text.strip()}s")
    except ValueError:
        raise SpecError(
            f"{option} {text} is no duration.", do=f"Write seconds, or a number and a unit: {option} 90s."
        ) from None


def faults(
    job: Annotated[
        str | None, typer.Argument(help="A job's name, for faults of its own.", metavar="JOB", show_default=False)
    ] = None,
    sync_faults: Annotated[
        str | None, typer.Option(help="What goes wrong with the mirroring of checkpoints from now on; none ends it.")
    ] = None,
    s3_faults: Annotated[
        str | None, typer.Option(help="What goes wrong with S3 from now on, for all jobs; none ends it.")
    ] = None,
    endpoint: Endpoint = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Let faults into the local server, or show them.

    From now on, those of agents also into attempts that run already; `none` ends them. Without a plan it shows what is
    in force and how often it has happened.
    """
    from spotproof.cli.console import print_json, print_line, print_table
    from spotproof.cli.locate import ask_controls

    fields = {"TrainingJobName": job, "SyncFaults": sync_faults, "S3Faults": s3_faults}
    answer = ask_controls("faults", fields, endpoint=endpoint, state_dir=state_dir)
    if as_json:
        print_json(answer)
        return
    print_line(f"sync faults: {answer['SyncFaults']}")
    print_line(f"S3 faults:   {answer['S3Faults']}")
    injected = [*answer.get("Injected", []), *answer["InjectedIntoS3"]]
    if injected:
        rows = [(item["Kind"], item.get("Attempt", "S3"), item["Count"], item["Examples"][0]) for item in injected]
        print_table(("fault", "attempt", "times", "first"), rows, right=("times",))
