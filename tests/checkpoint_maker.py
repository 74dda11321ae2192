"""A committed checkpoint without torch."""

from pathlib import Path

from spotproof.checkpoint.manifest import (
    Manifest,
    RankFiles,
    StoredFile,
    TensorEntry,
    content_hash,
    format_manifest,
    state_key,
)
from spotproof.checkpoint.pack import PackTensor, format_header, pack_file
from spotproof.storage import LocalStorage


def checkpoint(folder: Path, step: int, weights: bytes) -> LocalStorage:
    """Commit one tensor of *weights* as the checkpoint of *step*; return its storage."""
    storage = LocalStorage(folder)
    state = b'{"step": 1}'
    digest = content_hash(weights)
    header = format_header([PackTensor("model/w", "uint8", (len(weights),), len(weights), digest)])
    pack, state_file = pack_file(header, len(weights), 0), StoredFile(state_key(content_hash(state), 0), len(state))
    storage.put(pack.key, [header, weights])
    storage.put(state_file.key, [state])
    tensor = TensorEntry("model/w", "uint8", (len(weights),), digest, 0)
    manifest = Manifest(step=step, run_id="r", attempt=0, ranks=(RankFiles(state_file, (pack,), (tensor,)),))
    storage.put(manifest.key, [format_manifest(manifest)])
    return storage
