"""The manifest: a checkpoint exists when this file does and everything it names verifies. Loads no torch.

``step-0000001200.json`` holds one JSON object: who wrote it (run, attempt), and per rank the state file and the
packs, each with its size and hash, and for every tensor its name, dtype, shape, content hash and pack. Its own content
is covered by ``digest``.
"""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

import xxhash

from spotproof.errors import CheckpointDamaged, ResumeMismatch

__all__ = [
    "FORMAT",
    "MANIFEST_REGEX",
    "Manifest",
    "RankFiles",
    "StoredFile",
    "TensorEntry",
    "attempt_of",
    "content_hash",
    "format_manifest",
    "manifest_key",
    "parse_manifest",
    "state_key",
]

T = TypeVar("T")

FORMAT = 3
MANIFEST_REGEX = re.compile(r"step-([0-9]{10,})\.json")
_STATE_REGEX = re.compile(r"packs/[0-9a-f]{32}(?:\.[0-9]{1,9})?\.state")
_PACK_REGEX = re.compile(r"packs/[0-9a-f]{32}(?:\.[0-9]{1,9})?\.safetensors")
_ATTEMPT_REGEX = re.compile(r"packs/[0-9a-f]{32}\.([0-9]{1,9})\.(?:state|safetensors)")
_HASH_REGEX = re.compile(r"[0-9a-f]{32}")
_MAX_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An immutable file named by a hash: a state by that of its content, a pack by that of its header, which holds
    the hashes of the rest. The name also tells which attempt wrote it: no two attempts write, or remove, one file."""

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
    """Everything one rank needs."""

    state: StoredFile
    packs: tuple[StoredFile, ...]
    """May hold more than this checkpoint needs: packs of older saves are used again, and of what several ranks hold
    alike, the lowest of them has written the packs."""
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
        """Return every file this checkpoint consists of, besides the manifest; what ranks share comes once."""
        return list(dict.fromkeys(file for rank in self.ranks for file in (rank.state, *rank.packs)))

    @property
    def total_bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.size_bytes for file in self.files)


def manifest_key(step: int) -> str:
    """Return the key of the manifest of *step*."""
    return f"step-{step:010d}.json"


def state_key(digest: str, attempt: int) -> str:
    """Return the key of the non-tensor state with content hash *digest*, as *attempt* writes it."""
    return f"packs/{digest}.{attempt}.state"


def attempt_of(key: str) -> int | None:
    """Return which attempt wrote the pack or state *key*; None if the name does not tell."""
    match = _ATTEMPT_REGEX.fullmatch(key)
    return int(match[1]) if match is not None else None


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
                f"{key} has format {body['format']!r:.20}.",
                why=f"This version of Spotproof reads format {FORMAT}.",
                do="Resume with the version that wrote it, or give this run a folder of its own.",
            )
        manifest = Manifest(
            step=_count(body["step"]),
            run_id=_of(str, body["run_id"]),
            attempt=_count(body["attempt"]),
            created_at=_parse_instant(body["created_at"]),
            meta=_of(dict, body["meta"]),
            ranks=tuple(_parse_rank(rank) for rank in _of(list, body["ranks"])),
        )
        if not manifest.ranks:
            raise ValueError("no rank")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise CheckpointDamaged(f"{key} is not a whole manifest.", why=f"Reading it gave: {err!r:.200}.") from err
    if manifest.key != key:
        raise CheckpointDamaged(f"{key} holds the manifest of step {manifest.step}.", why="The file was renamed.")
    return manifest


def _format_file(file: StoredFile) -> dict[str, Any]:
    return {"file": file.key, "bytes": file.size_bytes}


def _parse_rank(body: dict[str, Any]) -> RankFiles:
    packs = tuple(_parse_file(pack, _PACK_REGEX) for pack in _of(list, body["packs"]))
    tensors = tuple(_parse_tensor(tensor, packs) for tensor in _of(list, body["tensors"]))
    return RankFiles(_parse_file(body["state"], _STATE_REGEX), packs, tensors)


def _parse_file(body: dict[str, Any], names: re.Pattern[str]) -> StoredFile:
    if names.fullmatch(body["file"]) is None:
        raise ValueError(f"file name {body['file']!r}")  # never follow a path from outside
    return StoredFile(body["file"], _count(body["bytes"]))


def _parse_tensor(body: list[Any], packs: tuple[StoredFile, ...]) -> TensorEntry:
    name, dtype, shape, digest, pack = body
    num_elements = math.prod(_count(size) for size in _of(list, shape)[:_MAX_DIMENSIONS])
    if len(shape) > _MAX_DIMENSIONS or _HASH_REGEX.fullmatch(digest) is None:
        raise ValueError(f"tensor {name!r}")
    # Memory is made by the shape: none may be larger than what its pack can hold, and none may be left unfilled.
    if num_elements > (packs[_count(pack)].size_bytes if pack is not None else 0):
        raise ValueError(f"tensor {name!r} of {num_elements} elements")
    return TensorEntry(_of(str, name), _of(str, dtype), tuple(shape), digest, pack)


def _parse_instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"time {text!r} without a zone")
    return instant


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no count")
    return value


def _of(kind: type[T], value: Any) -> T:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _digest(body: dict[str, Any]) -> str:
    return content_hash(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
