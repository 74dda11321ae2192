"""From a committed checkpoint back to state trees; every byte is verified on the way."""

import json
from typing import Any

import torch

from spotproof.checkpoint.choose import read_file
from spotproof.checkpoint.manifest import Manifest, Pack
from spotproof.checkpoint.tree import decode_tree
from spotproof.errors import CheckpointDamaged, ResumeMismatch
from spotproof.storage import Storage

__all__ = ["read_trees"]


def read_trees(storage: Storage, manifest: Manifest, *, rank: int = 0) -> dict[str, Any]:
    """Return the state trees of *rank*, by the names they were registered under; tensors are on the CPU.

    Raises:
        CheckpointDamaged: A file does not verify.
        ResumeMismatch: The checkpoint was written by another number of processes.
    """
    if rank >= len(manifest.ranks):
        raise ResumeMismatch(
            f"Checkpoint {manifest.key} was written by {len(manifest.ranks)} processes; this is rank {rank}.",
            do="Resume with the number of processes that wrote it.",
        )
    files = manifest.ranks[rank]
    tensors: list[torch.Tensor] = []
    for pack in files.packs:
        tensors.extend(_read_pack(storage, pack))
    trees: dict[str, Any] = json.loads(read_file(storage, files.state))
    return {name: decode_tree(tree, tensors) for name, tree in trees.items()}


def _read_pack(storage: Storage, pack: Pack) -> list[torch.Tensor]:
    data = bytearray(read_file(storage, pack.file))
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        base = 8 + size
        tensors = []
        for entry in pack.tensors:
            start, end = header[entry.name]["data_offsets"]
            dtype = getattr(torch, entry.dtype)
            if start == end:
                tensors.append(torch.empty(entry.shape, dtype=dtype))
                continue
            raw = torch.frombuffer(data, dtype=torch.uint8, offset=base + start, count=end - start)
            # The header is padded to 8 bytes and larger elements come first, so the view is aligned.
            tensors.append(raw.view(dtype).view(entry.shape))
    except (ValueError, KeyError, TypeError, RuntimeError) as err:
        raise CheckpointDamaged(f"{pack.file.key} is not the pack its manifest describes.", why=f"{err!r}.") from err
    return tensors
