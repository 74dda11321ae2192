"""``serve`` and ``reclaim``: the local SageMaker as a server of its own."""

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.local import LocalSageMaker

HostMode = Literal["auto", "namespace", "plain"]

__all__ = ["parse_hosts", "reclaim", "serve"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def serve(
    port: Annotated[int, typer.Option(help="TCP port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 0,
    state_dir: Annotated[Path | None, typer.Option(help="Where jobs and buckets are kept.")] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--image", help='URI=FOLDER:COMMAND: what an image holds, for example img=src:"python train.py".'),
    ] = None,
    reclaim: Annotated[str, typer.Option(help="Interruption schedule for all spot jobs.")] = "none",
    hosts: Annotated[str, typer.Option(help="How hosts are isolated: auto, namespace or plain.")] = "auto",
    as_json: Json = False,
) -> None:
    """Run a local SageMaker until Ctrl-C."""
    from spotproof.cli.console import open_console, print_json, print_line
    from spotproof.cli.locate import default_state_dir
    from spotproof.local import LocalSageMaker, parse_image
    from spotproof.rehearsal import only_aws_settings

    folder = state_dir or default_state_dir()
    closing = threading.Event()
    # Only a flag: the clean-up below runs once and whole, however often Ctrl-C is pressed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: closing.set())
    parsed = dict(parse_image(text) for text in images or [])
    platform = LocalSageMaker(folder, port=port, images=parsed, reclaim=reclaim, hosts=parse_hosts(hosts))
    with only_aws_settings({}), platform:
        environment = platform.environment()
        if as_json:
            print_json({"url": platform.url, "s3_url": platform.s3_url, "environment": environment})
        else:
            print_line(f"Local SageMaker ready at {platform.url} (state in {folder})")
            hints = open_console(stderr=True)
            if hints.is_terminal:
                hints.print("For AWS clients in another shell:", style="dim")
                for name, value in environment.items():
                    hints.print(f"  export {name}={value}", style="dim", soft_wrap=True)
                hints.print("Ctrl-C ends it; jobs and buckets stay for the next start.", style="dim")
        threading.Thread(target=_set_when_closed, args=(platform, closing), daemon=True).start()
        closing.wait()


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
    endpoint: Annotated[str | None, typer.Option(help="URL of the local server.", metavar="URL")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="The local server's state folder, if not the default.")] = None,
    as_json: Json = False,
) -> None:
    """Take the machines of a running spot job away, now."""
    from spotproof.cli.console import print_json, print_line
    from spotproof.cli.locate import post_reclaim

    answer = post_reclaim(job, endpoint=endpoint, state_dir=state_dir)
    if as_json:
        print_json({"job_name": job, **answer})
    else:
        print_line(f"The machines of {job} were taken away; it will restart.")
