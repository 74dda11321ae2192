"""``upload``, and how uploads are shown."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli.options import Endpoint, Inputs, Json, Overrides, Profile, StateDir
from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.launch import LocalFiles, TrainingService, Uploaded
    from spotproof.spec import JobSpec

__all__ = ["read_inputs", "upload", "upload_inputs"]

_YAML = (".yaml", ".yml")


def upload(
    source: Annotated[Path, typer.Argument(help="A file or folder, or a job's YAML file.", metavar="PATH|JOB.YAML")],
    target: Annotated[
        str | None, typer.Argument(help="Where it goes; a job's inputs go where `launch` puts them.", metavar="S3_URI")
    ] = None,
    is_local: Annotated[bool, typer.Option("--local", help="To the running local server, not to AWS.")] = False,
    profile: Profile = None,
    overrides: Overrides = None,
    inputs: Inputs = None,
    endpoint: Endpoint = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Copy data to S3; what is there already is not sent again.

    Several files at a time, each with its SHA-256: a file that lies there with the same size and checksum is left. With
    a job.yaml its local inputs are uploaded, and `launch` will find them there.
    """
    from spotproof.cli.console import print_json
    from spotproof.cli.locate import open_service
    from spotproof.launch import with_uploaded_inputs
    from spotproof.spec import read_job_spec, split_s3_uri

    if target is not None:
        if profile or overrides or inputs:
            raise SpecError("--profile, --set and --input change a job.", do="Leave them out, or upload the job.yaml.")
        split_s3_uri(target)
        if not source.exists():
            raise SpecError(f"There is no file or folder {source}.", do="Correct the path.")
        found, places, region = {source.name or str(source): source.resolve()}, {}, None
        files = _read_all(found)
        places = dict.fromkeys(files, target)
    elif source.suffix in _YAML:
        spec = read_job_spec(source, profile=profile, overrides=overrides or (), inputs=inputs or ())
        if not spec.local_inputs:
            raise SpecError(
                f"{source} has no local inputs.", why="All of them lie elsewhere already.", do="Launch it as it is."
            )
        files, region = read_inputs(spec), spec.region
        staged = with_uploaded_inputs(spec, {name: content.digest for name, content in files.items()})
        places = {name: staged.inputs[name].place for name in files}
    else:
        raise SpecError(
            "Where to is missing.", do=f"Write spotproof upload {source} s3://bucket/prefix/, or name a job.yaml."
        )
    service = open_service(endpoint=endpoint, is_aws=not is_local, state_dir=state_dir, region=region)
    if service.is_local:
        for place in places.values():
            service.make_bucket(split_s3_uri(place)[0])
    done = _upload(service, files, places)
    if as_json:
        print_json([{"input": name, **asdict(result), "others": list(result.others)} for name, result in done.items()])
    else:
        _show(done)


def read_inputs(spec: "JobSpec") -> "dict[str, LocalFiles]":
    """Return what the job's local inputs hold; all of it is read, to know what is in S3 already."""
    return _read_all(spec.local_inputs)


def upload_inputs(service: "TrainingService", request: Mapping[str, Any], files: "Mapping[str, LocalFiles]") -> None:
    """Bring *files* to where the *request* says that the job's channels are."""
    channels = {channel["ChannelName"]: channel["DataSource"] for channel in request.get("InputDataConfig", ())}
    places = {name: str(channels[name]["S3DataSource"]["S3Uri"]) for name in files}
    for result in _upload(service, files, places).values():
        _tell(result)


def _read_all(paths: Mapping[str, Path]) -> "dict[str, LocalFiles]":
    from spotproof.cli.console import print_line
    from spotproof.launch import read_files

    if not paths:
        return {}
    with _progress("Reading", None) as advance:
        found = {name: read_files(path, on_bytes=advance) for name, path in paths.items()}
    for content in found.values():
        if content.linked_folders:
            shown = ", ".join(content.linked_folders[:3]) + (", …" if len(content.linked_folders) > 3 else "")
            print_line(
                f"{content.source}: links to folders are left out: {shown}. Put the folder there, or name it as an "
                "input of its own, if the job reads it.",
                stderr=True,
                style="yellow",
            )
    return found


def _upload(
    service: "TrainingService", files: "Mapping[str, LocalFiles]", places: Mapping[str, str]
) -> "dict[str, Uploaded]":
    total = sum(content.size_bytes for content in files.values())
    with _progress("Uploading", total) as advance:
        return {name: service.upload(content, places[name], on_bytes=advance) for name, content in files.items()}


@contextlib.contextmanager
def _progress(what: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far it is; elsewhere nothing."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from spotproof.cli.console import open_console

    console = open_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total_bytes)
        yield lambda count: progress.update(task, advance=count)


def _tell(result: "Uploaded") -> None:
    from spotproof.cli.console import print_line

    sent, present = _files(result.num_uploaded), _files(result.num_present)
    told = [f"{sent} uploaded, {_bytes(result.uploaded_bytes)}"] if result.num_uploaded else []
    told += [f"{present} there already, {_bytes(result.present_bytes)}"] if result.num_present else []
    print_line(f"{result.s3_uri}: {'; '.join(told)}", stderr=True)


def _show(done: "Mapping[str, Uploaded]") -> None:
    from spotproof.cli.console import print_line, print_table

    rows = [
        (name, result.s3_uri, result.num_uploaded, _bytes(result.uploaded_bytes), result.num_present)
        for name, result in done.items()
    ]
    print_table(("input", "place", "uploaded", "size", "were there"), rows, right=("uploaded", "size", "were there"))
    for name, result in done.items():
        if result.others:
            shown = ", ".join(result.others[:3]) + (", …" if len(result.others) > 3 else "")
            print_line(
                f"{result.s3_uri} also holds what is not in {name} ({len(result.others)}): {shown}. "
                "A job that reads the prefix gets that, too.",
                stderr=True,
                style="yellow",
            )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
