"""``checkpoints export | import``: to and from plain files of torch. The only commands that need torch."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli.places import open_place, parse_place, read_checkpoint
from spotproof.errors import SpecError, SpotError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["export", "import_"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Aws = Annotated[bool, typer.Option("--aws", help="Use S3 at AWS even if a local server runs.")]


def export(
    place: Annotated[str, typer.Argument(help="A directory or s3://bucket/prefix.", metavar="PLACE[@STEP]")],
    target: Annotated[Path, typer.Argument(help="The file to make.", metavar="OUT.ckpt")],
    step: Annotated[int | None, typer.Option(help="Which checkpoint; by default the newest that verifies.")] = None,
    is_forced: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    is_aws: Aws = False,
    as_json: Json = False,
) -> None:
    """Make a Lightning .ckpt file of a checkpoint.

    It is for load_from_checkpoint() and Trainer.fit(ckpt_path=…); what was saved without Lightning comes as a dict of
    states. Of a training of several ranks it holds what rank 0 held.
    """
    from rich.filesize import decimal

    from spotproof.cli.console import print_json, print_line

    converter = _converter()
    place, step_in_place = parse_place(place)
    if step is not None and step_in_place not in (None, step):
        raise SpecError(f"--step {step} and {place}@{step_in_place} are two checkpoints.", do="Leave one of them out.")
    storage = open_place(place, is_aws)
    manifest = read_checkpoint(storage, step if step is not None else step_in_place)
    is_safe = converter.export_checkpoint(storage, manifest, target, force=is_forced)
    size_bytes = target.stat().st_size
    names = sorted({tensor.name.partition("/")[0] for tensor in manifest.ranks[0].tensors})
    num_ranks = len(manifest.ranks)
    is_lightning = names == [converter.LIGHTNING]
    if as_json:
        result: dict[str, Any] = {"file": str(target), "step": manifest.step, "bytes": size_bytes}
        result |= {"is_lightning": is_lightning, "loads_with_weights_only": is_safe}
        print_json({**result, "rank": 0, "num_ranks": num_ranks})
        return
    what = "a Lightning checkpoint" if is_lightning else f"a dict of states ({', '.join(names)})"
    of_rank = f", as rank 0 of {num_ranks} held it" if num_ranks > 1 else ""
    print_line(f"{target}: {what} of step {manifest.step}{of_rank}, {decimal(size_bytes)}.")
    if not is_safe:
        print_line(
            "It holds types that torch.load reads with weights_only=False only, or after "
            "torch.serialization.add_safe_globals.",
            stderr=True,
            style="yellow",
        )


def import_(
    source: Annotated[Path, typer.Argument(help="A checkpoint that Lightning wrote.", metavar="FILE.ckpt")],
    place: Annotated[str, typer.Argument(help="An empty or new directory or S3 prefix.", metavar="PLACE")],
    is_aws: Aws = False,
    as_json: Json = False,
) -> None:
    """Start a folder from a Lightning .ckpt file.

    fit(ckpt_path=spot.latest()) goes on from it as Lightning would from the file. No code of the file is run.
    """
    from rich.filesize import decimal

    from spotproof.cli.console import print_json, print_line

    storage = open_place(place, is_aws)
    manifest = _converter().import_checkpoint(source, storage)
    if as_json:
        print_json({"place": storage.url, "step": manifest.step, "bytes": manifest.total_bytes})
        return
    print_line(
        f"{storage.url} begins at step {manifest.step} ({decimal(manifest.total_bytes)}). Go on with "
        "fit(ckpt_path=spot.latest()); the data go on as Lightning does it, not sample by sample."
    )


def _converter() -> "ModuleType":
    try:
        # By name: the import rules hold that nothing here needs torch, and nothing but these two commands does.
        return importlib.import_module("spotproof.checkpoint.export")
    except ImportError as error:
        raise SpotError(
            f"This command reads and writes files of torch, which can't be imported: {error}.",
            do="Install it beside Spotproof: pip install 'spotproof[train]'.",
        ) from error
