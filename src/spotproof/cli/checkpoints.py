"""``checkpoints list | verify``: what lies in a directory or an S3 prefix. Needs no torch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.errors import CheckpointDamaged, CheckpointNotFound, ResumeMismatch

if TYPE_CHECKING:
    from spotproof.storage import Storage

__all__ = ["app"]

app = typer.Typer(
    help="Look at checkpoints in a directory or an S3 prefix.", no_args_is_help=True, rich_markup_mode=None
)

Place = Annotated[str, typer.Argument(help="A directory or s3://bucket/prefix.", metavar="PLACE")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Aws = Annotated[bool, typer.Option("--aws", help="Read S3 at AWS even if a local server runs.")]


@app.command("list")
def list_checkpoints(place: Place, is_aws: Aws = False, as_json: Json = False) -> None:
    """List the checkpoints in a directory or S3 prefix, newest first."""
    _show(_inspect(_open(place, is_aws), is_deep=False), as_json)


@app.command("verify")
def verify_checkpoints(place: Place, is_aws: Aws = False, as_json: Json = False) -> None:
    """Check each checkpoint against its hashes; exit 4 if one fails."""
    found = _inspect(_open(place, is_aws), is_deep=True)
    _show(found, as_json)
    damaged = [item for item in found if item["problem"]]
    if damaged:
        good = next((item["step"] for item in found if not item["problem"]), None)
        raise CheckpointDamaged(
            f"{len(damaged)} of {len(found)} checkpoints in {place} do not verify.",
            why=f"A resume would use step {good}." if good is not None else "A resume would begin from nothing.",
            do="Nothing need be done: damaged ones are passed over. Their files may be deleted.",
        )


def _open(place: str, is_aws: bool) -> "Storage":
    from spotproof.cli.locate import open_service, use_local_server
    from spotproof.storage import open_storage

    if place.startswith("s3://"):
        if is_aws:
            open_service(is_aws=True)  # finds the credentials of an AWS profile
        else:
            use_local_server()
    return open_storage(place)


def _inspect(storage: "Storage", *, is_deep: bool) -> list[dict[str, Any]]:
    from spotproof.checkpoint.choose import committed_steps, read_manifest, verify
    from spotproof.checkpoint.manifest import manifest_key

    found: list[dict[str, Any]] = []
    for step in committed_steps(storage):
        item: dict[str, Any] = {"step": step, "created_at": None, "attempt": None, "tensors": None, "bytes": None}
        item["problem"] = None
        try:
            manifest = read_manifest(storage, manifest_key(step))
            item |= {
                "created_at": manifest.created_at,
                "attempt": manifest.attempt,
                "tensors": sum(len(rank.tensors) for rank in manifest.ranks),
                "bytes": manifest.total_bytes,
            }
            if is_deep:
                verify(storage, manifest)
        except (CheckpointDamaged, ResumeMismatch) as error:
            item["problem"] = str(error)
        found.append({**item, "is_verified": item["problem"] is None if is_deep else None})
    if not found:
        raise CheckpointNotFound(
            f"There is no checkpoint in {storage.url}.", do="Check the place; the manifests are step-*.json."
        )
    return found


def _show(found: list[dict[str, Any]], as_json: bool) -> None:
    from rich.filesize import decimal
    from rich.text import Text

    from spotproof.cli.console import print_json, print_table

    if as_json:
        print_json(found)
        return
    rows: list[tuple[Any, ...]] = []
    for item in found:
        state = Text("damaged", style="red") if item["problem"] else Text("verified", style="green")
        if item["is_verified"] is None and not item["problem"]:
            state = Text("committed")
        created = f"{item['created_at'].astimezone():%Y-%m-%d %H:%M:%S}" if item["created_at"] else "-"
        size = decimal(item["bytes"]) if item["bytes"] is not None else "-"
        rows.append((item["step"], state, item["attempt"], created, item["tensors"], size, item["problem"] or ""))
    headings: list[str] = ["step", "state", "attempt", "created", "tensors", "size", "problem"]
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    rows = [tuple("-" if cell is None else cell for cell in row) for row in rows]
    print_table(headings, rows, right=("step", "attempt", "tensors", "size"))
