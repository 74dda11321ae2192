"""``image build | push``: a job's image, made by the container engine and put where SageMaker finds it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from spotproof.cli.options import Json
from spotproof.errors import SpecError

__all__ = ["app"]

app = typer.Typer(
    help="Build a job's image, and push it to ECR.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Job = Annotated[Path, typer.Argument(help="The job's YAML file, whose image_uri it is.", metavar="JOB.YAML")]
EngineName = Annotated[str, typer.Option(help="docker, podman, or auto for the first that answers.")]


@app.command()
def build(
    job: Job = Path("job.yaml"),
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="The Dockerfile; by default that in source_dir.", show_default=False),
    ] = None,
    build_args: Annotated[
        list[str] | None, typer.Option("--build-arg", help="NAME=VALUE for the Dockerfile. May be repeated.")
    ] = None,
    platform: Annotated[
        str | None,
        typer.Option(help="Build for this platform. Most of SageMaker's machines are linux/amd64.", show_default=False),
    ] = None,
    engine: EngineName = "auto",
    as_json: Json = False,
) -> None:
    """Build the image of a job from its source_dir, with this Spotproof in it as a wheel."""
    from spotproof.cli.console import print_json, print_line
    from spotproof.engine import parse_engine, require_engine
    from spotproof.launch import build_image
    from spotproof.spec import read_job_spec

    arguments = _pairs(build_args or [])
    spec = read_job_spec(job, needs_inputs=False)
    source = spec.source_dir or job.resolve().parent
    found = require_engine(parse_engine(engine))
    digest = build_image(
        found,
        image_uri=spec.image_uri,
        source=source,
        dockerfile=file or source / "Dockerfile",
        build_args=arguments,
        platform=platform,
    )
    if as_json:
        print_json({"image_uri": spec.image_uri, "digest": digest, "engine": found.kind})
    else:
        print_line(f"Built {spec.image_uri} ({digest}) with {found}")
        print_line("Run it here: spotproof serve, then spotproof launch --local. For AWS: spotproof image push.")


@app.command()
def push(job: Job = Path("job.yaml"), engine: EngineName = "auto", as_json: Json = False) -> None:
    """Push the image of a job to its registry; its ECR repository is made if it is not there.

    An image_uri without a registry goes to the ECR registry of the account and region in use.
    """
    from spotproof.cli.console import print_json, print_line
    from spotproof.engine import parse_engine, require_engine
    from spotproof.launch import parse_repository, push_image
    from spotproof.spec import read_job_spec

    spec = read_job_spec(job, needs_inputs=False)
    repository = parse_repository(spec.image_uri)
    found = require_engine(parse_engine(engine))
    pushed = push_image(found, spec.image_uri, repository)
    if as_json:
        print_json({"image_uri": pushed.image_uri, "is_new_repository": pushed.is_new_repository, "engine": found.kind})
        return
    print_line(f"Pushed {pushed.image_uri}" + ", whose repository is new" * pushed.is_new_repository)
    if pushed.image_uri != spec.image_uri:
        print_line(f"For AWS, write it into {job}: image_uri: {pushed.image_uri}")


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise SpecError(f"--build-arg {text!r} can't be read.", do="Write NAME=VALUE.")
        found[name] = value
    return found
