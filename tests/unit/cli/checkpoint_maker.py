"""A committed checkpoint without torch."""

from pathlib import Path

from spotproof.checkpoint.manifest import (
    Manifest,
    Pack,
    RankFiles,
    StoredFile,
    TensorEntry,
    content_hash,
    format_manifest,
    pack_key,
    state_key,
)
from spotproof.storage import LocalStorage


def checkpoint(folder: Path, step: int, weights: bytes) -> LocalStorage:
    """Commit one tensor of *weights* as the checkpoint of *step*; return its storage."""
    storage = LocalStorage(folder)
    state = b'{"step": 1}'
    pack, state_file = pack_key(content_hash(weights)), state_key(content_hash(state))
    storage.put(pack, [weights])
    storage.put(state_file, [state])
    tensor = TensorEntry("model/w", "uint8", (len(weights),), content_hash(weights))
    manifest = Manifest(
        step=step,
        run_id="r",
        attempt=0,
        ranks=(RankFiles(StoredFile(state_file, len(state)), (Pack(StoredFile(pack, len(weights)), (tensor,)),)),),
    )
    storage.put(manifest.key, [format_manifest(manifest)])
    return storage
