"""To and from files of ``torch.save``: a Lightning ``.ckpt`` out of a checkpoint, and a checkpoint out of one."""

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from spotproof.checkpoint.checkpointer import Checkpointer
from spotproof.checkpoint.choose import committed_steps, newest_verified
from spotproof.checkpoint.manifest import Manifest
from spotproof.checkpoint.restore import read_state
from spotproof.errors import CheckpointConflict, CheckpointError, CheckpointNotFound, SpecError, UnsafeState
from spotproof.events import AttemptEnded
from spotproof.storage import Storage

__all__ = ["LIGHTNING", "build_export", "export_checkpoint", "import_checkpoint"]

LIGHTNING = "lightning"
"""The name that SpotCheckpoint registers a Lightning training under."""
_OURS = "spotproof"
"""What SpotCheckpoint adds to Lightning's own checkpoint."""
_LIGHTNING_KEYS = ("state_dict", "global_step", "epoch", "loops", "optimizer_states", "lr_schedulers")


def build_export(trees: dict[str, Any]) -> dict[str, Any]:
    """Return what the exported file holds: of a Lightning training, what Lightning itself would have saved.

    Left out are the parts that only Spotproof reads, and the positions of its loaders, which Lightning's would refuse.

    Args:
        trees: The state trees by registered name, as a checkpoint holds them.
    """
    if set(trees) != {LIGHTNING}:
        return dict(trees)
    checkpoint = {name: value for name, value in trees[LIGHTNING].items() if name != _OURS}
    loops = dict(checkpoint["loops"])
    fit_loop = dict(loops["fit_loop"])
    fit_loop["state_dict"] = {k: v for k, v in fit_loop["state_dict"].items() if k != "combined_loader"}
    return {**checkpoint, "loops": {**loops, "fit_loop": fit_loop}}


def export_checkpoint(
    storage: Storage, manifest: Manifest, target: str | os.PathLike[str], *, force: bool = False
) -> bool:
    """Write the checkpoint as one file for ``torch.load``, whole or not at all.

    Args:
        storage: Where the checkpoint lies.
        manifest: The checkpoint.
        target: The file to make.
        force: Replace a file that is there.

    Returns:
        Whether ``torch.load(target, weights_only=True)`` reads it; False if the state holds a type that needs more.

    Raises:
        SpecError: There is such a file already, or no such folder.
        CheckpointDamaged: A file of the checkpoint does not verify.
        OSError: The file could not be written.
    """
    path = Path(target)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SpecError(
            f"{path} can't be made.",
            why="It is a folder." if path.is_dir() else f"There is no folder {path.absolute().parent}.",
            do="Name a file in a folder that is there.",
        )
    _refuse_to_replace(path, force)
    content = build_export(read_state(storage, manifest).decoded())
    staged = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(staged, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        is_safe = True
        try:
            torch.load(staged, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            is_safe = False
        if force:
            os.replace(staged, path)
        else:
            # A link, unlike a rename, fails if somebody has made the file meanwhile.
            try:
                os.link(staged, path)
            except FileExistsError:
                _refuse_to_replace(path, force)
            except OSError:  # a file system without links
                _refuse_to_replace(path, force)
                os.replace(staged, path)
        directory = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        staged.unlink(missing_ok=True)
    return is_safe


def _refuse_to_replace(path: Path, force: bool) -> None:
    if path.exists() and not (force and path.is_file()):
        do = "Choose another name." if not path.is_file() else "Choose another name, or use --force to replace it."
        raise SpecError(f"{path} is there already.", do=do)


class _Imported:
    """A Lightning checkpoint as something with state."""

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self._checkpoint = checkpoint

    def state_dict(self) -> dict[str, Any]:
        return self._checkpoint

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self._checkpoint = state_dict


def import_checkpoint(source: str | os.PathLike[str], storage: Storage) -> Manifest:
    """Begin a run in the empty *storage* with the Lightning checkpoint in the file *source*; return its checkpoint.

    ``fit(ckpt_path=spot.latest())`` goes on from it as Lightning would from the file. Runs no code from the file.

    Raises:
        CheckpointNotFound: There is no such file.
        SpecError: It is no checkpoint of a Lightning training.
        UnsafeState: It holds a type that only unpickling could read.
        CheckpointConflict: There are checkpoints in *storage*, or something runs there.
        CheckpointError: It could not be written.
    """
    if committed_steps(storage):
        raise CheckpointConflict(
            f"{storage.url} holds checkpoints already.",
            why="A run would go on from the newest of them, and not from what is imported.",
            do="Name an empty place.",
        )
    checkpoint = _load(Path(source))
    missing = [key for key in _LIGHTNING_KEYS if key not in checkpoint]
    if missing:
        raise SpecError(
            f"{source} is no checkpoint of a Lightning training: it lacks {', '.join(missing)}.",
            why="Only weights were saved, and a training can't go on from those alone."
            if "state_dict" in checkpoint
            else "It was written by something else.",
            do="Load it in your script, and let the run start from there.",
        )
    checkpointer = Checkpointer(storage.url, config={"imported_from": os.fspath(source)})
    checkpointer.register(LIGHTNING, _Imported(checkpoint))
    step = int(checkpoint["global_step"])
    meta = {"epoch": int(checkpoint["epoch"]), "imported_from": Path(source).name}
    checkpointer.save(step, meta=meta, wait=True)
    manifest = newest_verified(storage)
    if manifest is None or manifest.step != step:
        raise CheckpointError(f"{source} could not be stored in {storage.url}.", do="The warning above says why.")
    checkpointer.record(AttemptEnded(attempt=checkpointer.begin(), outcome="finished", step=step))
    return manifest


def _load(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise SpecError(
            f"{path} is a folder.",
            why="Lightning's .ckpt is one file; a folder is Spotproof's own, or a sharded checkpoint.",
            do="Name the .ckpt. A folder of Spotproof needs no import.",
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as err:
        raise CheckpointNotFound(f"There is no file {path}.") from err
    except pickle.UnpicklingError as err:
        raise _refused(path, err) from err
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
    ) as err:  # a cut zip archive is a RuntimeError of torch's reader
        raise _unreadable(path, err) from err
    if not isinstance(checkpoint, dict):
        raise SpecError(f"{path} holds a {type(checkpoint).__name__}, no checkpoint of a Lightning training.")
    return checkpoint


def _refused(path: Path, err: pickle.UnpicklingError) -> Exception:
    unsafe: list[str] = []
    with contextlib.suppress(Exception):  # only for a better message; the file may be anything
        unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    if not unsafe:
        return _unreadable(path, err)
    return UnsafeState(
        f"{path} holds {', '.join(unsafe)}, which only unpickling could read.",
        why="Unpickling runs code from the file, so it is not done.",
        do="If you trust the file, make one without: load it with torch.load(weights_only=False), remove or replace "
        "what is named (often in 'hyper_parameters', 'callbacks'), and torch.save it again.",
    )


def _unreadable(path: Path, err: Exception) -> SpecError:
    told = str(err).strip().partition("\n")[0].rstrip(".")
    # What is no zip archive is read as an old pickle, and fails with the number of an opcode, with nothing, or with
    # the advice to run its code.
    is_told = isinstance(err, RuntimeError) and len(told.split()) > 1
    why = f"{told}." if is_told else "It is cut short, or something else."
    return SpecError(
        f"{path} can't be read as a file of torch.save.",
        why=why,
        do="Name a .ckpt that Lightning wrote, or copy it anew.",
    )
