"""The manifest: a checkpoint exists when this file does and everything it names verifies. Loads no torch.

``step-0000001200.json`` holds one JSON object: who wrote it (run, attempt), and per rank the state file and the
packs, each with its size and hash, and for every tensor its name, dtype, shape, content hash and pack. Its own content
is covered by ``digest``.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import xxhash

from spotproof.errors import CheckpointDamaged, ResumeMismatch

__all__ = [
    "FORMAT",
    "MANIFEST_REGEX",
    "Manifest",
    "RankFiles",
    "StoredFile",
    "TensorEntry",
    "content_hash",
    "format_manifest",
    "manifest_key",
    "parse_manifest",
    "state_key",
]

FORMAT = 2
MANIFEST_REGEX = re.compile(r"step-(\d{10,})\.json")
_FILE_REGEX = re.compile(r"packs/[0-9a-f]{32}\.(safetensors|state)")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An immutable file named by a hash: a state by that of its content, a pack by that of its header, which holds
    the hashes of the rest."""

    key: str
    size_bytes: int

    @property
    def hash(self) -> str:
        """Return the xxh3-128 in the name, in hex."""
        return self.key.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What a pack holds of one tensor."""

    name: str
    """Path in the state tree, such as ``lightning/state_dict/conv1.weight``."""
    dtype: str
    """Torch's name without the prefix: ``float32``."""
    shape: tuple[int, ...]
    hash: str
    """xxh3-128 of the tensor's bytes, in hex. The pack's header tells by it where they are."""
    pack: int | None
    """Which of the rank's packs holds them; None if there are no bytes."""


@dataclass(frozen=True, slots=True)
class RankFiles:
    """Everything one rank wrote."""

    state: StoredFile
    packs: tuple[StoredFile, ...]
    """May hold more than this checkpoint needs: packs of older saves are used again."""
    tensors: tuple[TensorEntry, ...]
    """In the order of the state tree's references."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A committed checkpoint."""

    step: int
    run_id: str
    attempt: int
    ranks: tuple[RankFiles, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    """Small facts for people: epoch, versions."""
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def key(self) -> str:
        """Return the manifest's own key."""
        return manifest_key(self.step)

    @property
    def files(self) -> list[StoredFile]:
        """Return every file this checkpoint consists of, besides the manifest."""
        return [file for rank in self.ranks for file in (rank.state, *rank.packs)]

    @property
    def total_bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.size_bytes for file in self.files)


def manifest_key(step: int) -> str:
    """Return the key of the manifest of *step*."""
    return f"step-{step:010d}.json"


def state_key(digest: str) -> str:
    """Return the key of the non-tensor state with content hash *digest*."""
    return f"packs/{digest}.state"


def content_hash(*chunks: bytes | bytearray | memoryview) -> str:
    """Return the xxh3-128 of the concatenated *chunks*, in hex. It guards against damage, not against an attacker."""
    digest = xxhash.xxh3_128()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def format_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as the bytes of its file."""
    body = {
        "format": FORMAT,
        "step": manifest.step,
        "run_id": manifest.run_id,
        "attempt": manifest.attempt,
        "created_at": manifest.created_at.isoformat(),
        "meta": manifest.meta,
        "ranks": [
            {
                "state": _format_file(rank.state),
                "packs": [_format_file(pack) for pack in rank.packs],
                "tensors": [[t.name, t.dtype, list(t.shape), t.hash, t.pack] for t in rank.tensors],
            }
            for rank in manifest.ranks
        ],
    }
    return json.dumps({**body, "digest": _digest(body)}, indent=1).encode()


def parse_manifest(data: bytes, key: str) -> Manifest:
    """Return the manifest that *data*, the content of *key*, holds.

    Raises:
        CheckpointDamaged: It is cut short, altered, not a manifest, or not the one its name says.
        ResumeMismatch: It is of another format. That is no damage: to pass over it would be to lose what it holds.
    """
    try:
        body = json.loads(data)
        digest = body.pop("digest")
        if digest != _digest(body):  # first, and the same in every format: a flipped bit is no other format
            raise CheckpointDamaged(f"{key} does not match its own checksum.", why="It was cut short or altered.")
        if body["format"] != FORMAT:
            raise ResumeMismatch(
                f"{key} has format {body['format']}.",
                why=f"This version of Spotproof reads format {FORMAT}.",
                do="Resume with the version that wrote it, or give this run a folder of its own.",
            )
        manifest = Manifest(
            step=body["step"],
            run_id=body["run_id"],
            attempt=body["attempt"],
            created_at=datetime.fromisoformat(body["created_at"]),
            meta=body["meta"],
            ranks=tuple(
                RankFiles(
                    state=_parse_file(rank["state"]),
                    packs=tuple(_parse_file(pack) for pack in rank["packs"]),
                    tensors=tuple(
                        TensorEntry(name, dtype, tuple(shape), tensor_hash, pack)
                        for name, dtype, shape, tensor_hash, pack in rank["tensors"]
                    ),
                )
                for rank in body["ranks"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise CheckpointDamaged(f"{key} is not a whole manifest.", why=f"Reading it gave: {err!r}.") from err
    if manifest.key != key:
        raise CheckpointDamaged(f"{key} holds the manifest of step {manifest.step}.", why="The file was renamed.")
    return manifest


def _format_file(file: StoredFile) -> dict[str, Any]:
    return {"file": file.key, "bytes": file.size_bytes}


def _parse_file(body: dict[str, Any]) -> StoredFile:
    if _FILE_REGEX.fullmatch(body["file"]) is None:
        raise ValueError(f"file name {body['file']!r}")  # never follow a path from outside
    return StoredFile(body["file"], int(body["bytes"]))


def _digest(body: dict[str, Any]) -> str:
    return content_hash(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
