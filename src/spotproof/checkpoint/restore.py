"""From a committed checkpoint back to state trees; every byte is verified on the way."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from spotproof.checkpoint.choose import check_sizes, read_file
from spotproof.checkpoint.manifest import Manifest, RankFiles, StoredFile
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
        ResumeMismatch: The checkpoint was written by another number of processes.
    """
    if rank >= len(manifest.ranks):
        raise ResumeMismatch(
            f"Checkpoint {manifest.key} was written by {len(manifest.ranks)} processes; this is rank {rank}.",
            do="Resume with the number of processes that wrote it.",
        )
    check_sizes(storage, manifest)
    files = manifest.ranks[rank]
    trees: dict[str, Any] = json.loads(read_file(storage, files.state))
    return ReadState(manifest.key, trees, _read_tensors(storage, files))


def _read_tensors(storage: Storage, files: RankFiles) -> list[torch.Tensor]:
    tensors = [torch.empty(entry.shape, dtype=getattr(torch, entry.dtype)) for entry in files.tensors]
    first: dict[str, torch.Tensor] = {}
    wanted: list[dict[str, memoryview]] = [{} for _ in files.packs]
    for entry, tensor in zip(files.tensors, tensors, strict=True):
        if entry.pack is not None and entry.hash not in first:
            first[entry.hash] = _bytes_of(tensor)
            wanted[entry.pack][entry.hash] = first[entry.hash].numpy().data

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


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1).view(torch.uint8)
