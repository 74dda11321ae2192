"""From a committed checkpoint back to state trees; every byte is verified on the way."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from spotproof.checkpoint.choose import check_sizes, read_file
from spotproof.checkpoint.manifest import Manifest, RankFiles, StoredFile
from spotproof.checkpoint.memory import empty
from spotproof.checkpoint.pack import read_pack
from spotproof.checkpoint.tree import decode_tree
from spotproof.errors import CheckpointDamaged, ResumeMismatch
from spotproof.storage import Storage

__all__ = ["ReadState", "read_state"]

_NUM_READERS = 2


@dataclass(frozen=True, slots=True)
class ReadState:
    """The verified content of a checkpoint, in memory."""

    key: str
    trees: dict[str, Any]
    """JSON values, by the names they were registered under."""
    tensors: list[torch.Tensor]
    """On the CPU, in the order of the trees' references."""

    def decoded(self) -> dict[str, Any]:
        """Return the state trees.

        Raises:
            ResumeMismatch: They hold something that this program can't read.
        """
        try:
            return {name: decode_tree(tree, self.tensors) for name, tree in self.trees.items()}
        except Exception as err:  # its bytes are whole, so what is wrong is who reads it
            raise ResumeMismatch(
                f"{self.key} holds something that this program can't read.",
                why=f"{err!r}.",
                do="Resume with the versions that wrote it, and allow the types it allowed "
                "(torch.serialization.add_safe_globals) before the checkpoint is loaded.",
            ) from err


def read_state(storage: Storage, manifest: Manifest, *, rank: int = 0) -> ReadState:
    """Return the state of *rank*. Packs are read and verified side by side, each tensor into memory of its own.

    Raises:
        CheckpointDamaged: A file does not verify.
        ResumeMismatch: It holds what this machine can't hold, or this torch does not know.
    """
    check_sizes(storage, manifest)
    files = manifest.ranks[rank]
    trees = _read_trees(storage, files.state)
    return ReadState(manifest.key, trees, _read_tensors(storage, manifest, files))


def _read_trees(storage: Storage, file: StoredFile) -> dict[str, Any]:
    try:
        trees = json.loads(read_file(storage, file))
    except (ValueError, RecursionError) as err:  # whole, but not what we write under such a name
        raise CheckpointDamaged(f"{file.key} in {storage.url} is no state.", why=f"{err!r:.200}.") from err
    if not isinstance(trees, dict):
        raise CheckpointDamaged(f"{file.key} in {storage.url} is no state.", why="It holds no names.")
    return trees


def _read_tensors(storage: Storage, manifest: Manifest, files: RankFiles) -> list[torch.Tensor]:
    dtypes = [_dtype(entry.dtype, manifest) for entry in files.tensors]
    _refuse_more_than_memory(
        sum(math.prod(entry.shape) * dtype.itemsize for entry, dtype in zip(files.tensors, dtypes, strict=True)),
        manifest,
    )
    first: dict[str, torch.Tensor] = {}
    wanted: list[dict[str, memoryview]] = [{} for _ in files.packs]
    try:
        tensors = [empty(entry.shape, dtype) for entry, dtype in zip(files.tensors, dtypes, strict=True)]
        for entry, tensor in zip(files.tensors, tensors, strict=True):
            if entry.pack is not None and entry.hash not in first:
                first[entry.hash] = _bytes_of(tensor)
                wanted[entry.pack][entry.hash] = first[entry.hash].numpy().data
    except RuntimeError as err:
        raise CheckpointDamaged(
            f"{manifest.key} in {storage.url} describes tensors that can't be.", why=f"{err!r:.200}."
        ) from err

    def read(pack: StoredFile, buffers: dict[str, memoryview]) -> None:
        def buffer_for(digest: str, size_bytes: int) -> memoryview | None:
            buffer = buffers.pop(digest, None)
            if buffer is not None and len(buffer) != size_bytes:
                raise CheckpointDamaged(f"{pack.key} in {storage.url} is not the pack its manifest describes.")
            return buffer

        read_pack(storage, pack, buffer_for)
        if buffers:
            raise CheckpointDamaged(f"{pack.key} in {storage.url} lacks tensors that its manifest says it holds.")

    with ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="spotproof-read") as pool:
        list(pool.map(read, files.packs, wanted))
    for entry, tensor in zip(files.tensors, tensors, strict=True):
        if entry.pack is not None and _bytes_of(tensor).data_ptr() != first[entry.hash].data_ptr():
            _bytes_of(tensor).copy_(first[entry.hash])  # the same bytes under another name
    return tensors


def _dtype(name: str, manifest: Manifest) -> torch.dtype:
    dtype = vars(torch).get(name)
    if not isinstance(dtype, torch.dtype) or name.startswith("q"):  # quantized ones are never written
        raise ResumeMismatch(
            f"Checkpoint {manifest.key} holds a tensor of type {name!r:.40}, which torch {torch.__version__} lacks.",
            do="Resume with the version of torch that wrote it.",
        )
    return dtype


def _refuse_more_than_memory(num_bytes: int, manifest: Manifest) -> None:
    has_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > has_bytes:  # Linux would give it, and then end the process without a word
        raise ResumeMismatch(
            f"Checkpoint {manifest.key} holds {num_bytes / 2**30:.0f} GiB of tensors.",
            why=f"This machine has {has_bytes / 2**30:.0f} GiB of memory.",
            do="Resume on a machine with as much memory as the one that wrote it.",
        )


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1).view(torch.uint8)
