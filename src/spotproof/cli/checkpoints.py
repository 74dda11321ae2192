"""``checkpoints list | verify | diff | prune``: what lies in a directory or an S3 prefix. Needs no torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli import checkpoint_files
from spotproof.cli.places import open_place, parse_place, read_checkpoint
from spotproof.errors import CheckpointDamaged, NotIdentical, ResumeMismatch

if TYPE_CHECKING:
    from spotproof.checkpoint.manifest import StoredFile
    from spotproof.storage import Storage

__all__ = ["app"]

app = typer.Typer(
    help="Look at, compare and convert checkpoints.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Place = Annotated[str, typer.Argument(help="A directory or s3://bucket/prefix.", metavar="PLACE")]
Checkpoint = Annotated[
    str, typer.Argument(help="PLACE for its newest checkpoint that verifies, or PLACE@STEP.", metavar="PLACE[@STEP]")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Aws = Annotated[bool, typer.Option("--aws", help="Read S3 at AWS even if a local server runs.")]


@app.command("list")
def list_checkpoints(place: Place, is_aws: Aws = False, as_json: Json = False) -> None:
    """List the checkpoints in a directory or S3 prefix, newest first."""
    _show(_inspect(open_place(place, is_aws), is_deep=False), as_json)


@app.command("verify")
def verify_checkpoints(place: Place, is_aws: Aws = False, as_json: Json = False) -> None:
    """Check each checkpoint against its hashes; exit 4 if one fails."""
    found = _inspect(open_place(place, is_aws), is_deep=True)
    _show(found, as_json)
    damaged = [item for item in found if item["problem"]]
    if damaged:
        good = next((item["step"] for item in found if not item["problem"]), None)
        raise CheckpointDamaged(
            f"{len(damaged)} of {len(found)} checkpoints in {place} do not verify.",
            why=f"A resume would use step {good}." if good is not None else "A resume would begin from nothing.",
            do="Nothing need be done: damaged ones are passed over. Their files may be deleted.",
        )


@app.command()
def diff(
    a: Checkpoint,
    b: Checkpoint,
    show_all: Annotated[bool, typer.Option("--all", help="Show every difference, not only the first.")] = False,
    is_aws: Aws = False,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints bit for bit; exit 7 if they differ. The newest that verify, unless steps are given."""
    from spotproof.checkpoint.compare import NOT_COMPARED, find_differences
    from spotproof.cli.console import print_json, print_line, print_table

    sides, shown = [], []
    for text in (a, b):
        place, step = parse_place(text)
        storage = open_place(place, is_aws)
        manifest = read_checkpoint(storage, step)
        sides.append((storage, manifest))
        shown.append(
            {"place": storage.url, "step": manifest.step, "tensors": sum(len(r.tensors) for r in manifest.ranks)}
        )
    (storage_a, one), (storage_b, other) = sides
    found = []
    for difference in find_differences(one, storage_a, other, storage_b):
        found.append(difference)
        if not show_all and difference.where != "step":  # that the steps differ does not say where the states do
            break
    if as_json:
        print_json(
            {
                "is_identical": not found,
                "a": shown[0],
                "b": shown[1],
                "differences": [{"where": d.where, "detail": d.detail} for d in found],
                "is_complete": show_all or not found,
                "values_not_compared": list(NOT_COMPARED),
            }
        )
    elif not found:
        print_line(
            f"Identical, bit for bit: step {one.step}, {shown[0]['tensors']} tensors (weights, optimizer, random "
            "numbers, metrics) and all plain values (loops, schedulers, data position), but for those of "
            f"{', '.join(NOT_COMPARED)}, which hold paths and times."
        )
    else:
        print_table(["differs", "how"], [(d.where, d.detail) for d in found])
    if found:
        first = next((d for d in found if d.where != "step"), found[0])
        raise NotIdentical(
            f"Step {one.step} in {storage_a.url} and step {other.step} in {storage_b.url} differ"
            + (f" in {len(found)} places." if show_all and len(found) > 1 else f", first at {first.where}."),
            do="" if show_all else "With --all, every difference is shown.",
        )


@app.command()
def prune(
    place: Place,
    keep: Annotated[int, typer.Option(help="How many of the newest that verify to keep.", min=1)],
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    is_forced: Annotated[bool, typer.Option("--force", help="Even if an attempt may be running.")] = False,
    is_aws: Aws = False,
    as_json: Json = False,
) -> None:
    """Remove all but the newest checkpoints that verify."""
    from datetime import datetime, timezone

    from rich.filesize import decimal

    from spotproof.checkpoint import prune as pruning
    from spotproof.cli.console import print_json, print_line

    storage = open_place(place, is_aws)
    if not is_forced:
        pruning.refuse_if_running(storage, datetime.now(timezone.utc))
    plan = pruning.plan_prune(storage, keep=keep)
    if not is_dry:
        pruning.prune(storage, plan)
    if as_json:
        print_json(
            {
                "place": storage.url,
                "is_dry_run": is_dry,
                "kept_steps": plan.kept_steps,
                "removed_steps": plan.removed_steps,
                "damaged_steps": plan.damaged_steps,
                "removed_files": [entry.key for entry in plan.removed],
                "freed_bytes": plan.freed_bytes,
            }
        )
        return
    kept = f"Kept, verified: {_listed(plan.kept_steps)}."
    if not plan.removed:
        print_line(f"Nothing to remove. {kept}")
        return
    removed = f"{len(plan.removed)} files, {decimal(plan.freed_bytes)}"
    steps = f"checkpoints: {_listed(plan.removed_steps)}" if plan.removed_steps else "no checkpoint names them"
    damaged = f"; damaged: {_listed(plan.damaged_steps)}" if plan.damaged_steps else ""
    print_line(f"{'Would remove' if is_dry else 'Removed'} {removed} ({steps}{damaged}). {kept}")


def _listed(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:10]))
    return shown if len(steps) <= 10 else f"{shown} and {len(steps) - 10} more"


def _inspect(storage: "Storage", *, is_deep: bool) -> list[dict[str, Any]]:
    from spotproof.checkpoint.choose import committed_steps, no_checkpoint, read_manifest, verify
    from spotproof.checkpoint.manifest import manifest_key

    found: list[dict[str, Any]] = []
    known: dict[StoredFile, CheckpointDamaged | None] = {}  # a pack that several share is read once
    for step in committed_steps(storage):
        item: dict[str, Any] = {"step": step, "created_at": None, "attempt": None, "tensors": None, "bytes": None}
        item |= {"ranks": None, "problem": None}
        try:
            manifest = read_manifest(storage, manifest_key(step))
            item |= {
                "created_at": manifest.created_at,
                "attempt": manifest.attempt,
                "tensors": sum(len(rank.tensors) for rank in manifest.ranks),
                "bytes": manifest.total_bytes,
                "ranks": len(manifest.ranks),
            }
            if is_deep:
                verify(storage, manifest, known)
        except (CheckpointDamaged, ResumeMismatch) as error:
            item["problem"] = str(error)
        found.append({**item, "is_verified": item["problem"] is None if is_deep else None})
    if not found:
        raise no_checkpoint(storage)
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
    if any(item["ranks"] not in (None, 1) for item in found):
        headings.insert(3, "ranks")
        rows = [(*row[:3], item["ranks"], *row[3:]) for row, item in zip(rows, found, strict=True)]
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    rows = [tuple("-" if cell is None else cell for cell in row) for row in rows]
    print_table(headings, rows, right=("step", "attempt", "ranks", "tensors", "size"))


app.command("export")(checkpoint_files.export)
app.command("import")(checkpoint_files.import_)
