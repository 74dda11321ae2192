"""Packs: immutable safetensors files that verify themselves. Loads no torch.

A pack is 8 bytes of header length, the header as JSON, then the tensors' bytes without gaps. Its ``__metadata__`` holds
each tensor's content hash, and the file's name holds that of the header: the name vouches for the header, the header
for every byte. So one pass over the data hashes it for the tensors, the file and the manifest alike, and a tensor is
found by its content in whatever pack it was first written to.

Source of the file format: github.com/huggingface/safetensors, README "Format".
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import xxhash

from spotproof.checkpoint.manifest import StoredFile, content_hash
from spotproof.errors import CheckpointDamaged, CheckpointUnreadable
from spotproof.storage import Storage, StorageUnavailable

__all__ = ["PackTensor", "format_header", "pack_file", "read_pack", "telling_damage"]

# Read and hashed piece by piece, so that the hash finds the bytes in the processor's cache.
_PIECE_BYTES = 2**20
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit

_SAFETENSORS_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "int64": "I64",
    "uint64": "U64",
    "float64": "F64",
    "complex64": "C64",
}


@dataclass(frozen=True, slots=True)
class PackTensor:
    """One tensor of a pack."""

    name: str
    dtype: str
    """Torch's name without the prefix: ``float32``."""
    shape: tuple[int, ...]
    size_bytes: int
    hash: str
    """xxh3-128 of its bytes, in hex."""


def format_header(tensors: Sequence[PackTensor]) -> bytes:
    """Return the head of a pack whose data are those of *tensors* in this order, without gaps."""
    hashes: dict[str, str] = {}
    entries: dict[str, object] = {"__metadata__": hashes}
    start = 0
    for tensor in tensors:
        name = tensor.name
        while name in entries:
            name += "#"
        known = _SAFETENSORS_DTYPES.get(tensor.dtype)
        # A dtype that the format has no name for is kept as bytes; the manifest knows what it is.
        shape = list(tensor.shape) if known else [tensor.size_bytes]
        end = start + tensor.size_bytes
        entries[name] = {"dtype": known or "U8", "shape": shape, "data_offsets": [start, end]}
        hashes[name] = tensor.hash
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def pack_file(header: bytes, data_bytes: int, attempt: int) -> StoredFile:
    """Return the name and size of the pack that begins with *header*, as *attempt* writes it."""
    return StoredFile(f"packs/{content_hash(header)}.{attempt}.safetensors", len(header) + data_bytes)


def read_pack(
    storage: Storage, stored: StoredFile, buffer_for: Callable[[str, int], memoryview | None] = lambda *_: None
) -> None:
    """Read and verify the whole pack, and put tensors where *buffer_for* wants them.

    Args:
        storage: Where it lies.
        stored: Its name and size.
        buffer_for: From a tensor's content hash and size in bytes to a writable buffer of that size, or None if it is
            only to be verified. What was put there counts only once this has returned.

    Raises:
        CheckpointDamaged: It is missing, cut short or altered.
    """
    with _opened(storage, stored) as file:
        regions, size = _read_header(file, storage, stored)
        scratch = memoryview(bytearray(_PIECE_BYTES))
        for digest, size_bytes in regions:
            buffer = buffer_for(digest, size_bytes)
            hasher = xxhash.xxh3_128()
            for start in range(0, size_bytes, _PIECE_BYTES):
                length = min(_PIECE_BYTES, size_bytes - start)
                piece = scratch[:length] if buffer is None else buffer[start : start + length]
                _fill(file, piece, storage, stored)
                hasher.update(piece)
            if hasher.hexdigest() != digest:
                raise _altered(storage, stored)
            size += size_bytes
        if size != stored.size_bytes or file.read(1):
            raise CheckpointDamaged(
                f"{stored.key} in {storage.url} does not have the {stored.size_bytes} bytes it had."
            )


def _read_header(file: BinaryIO, storage: Storage, stored: StoredFile) -> tuple[list[tuple[str, int]], int]:
    """Return (content hash, size in bytes) of each tensor in the file's order, and the header's own size."""
    length = bytearray(8)
    _fill(file, memoryview(length), storage, stored)
    size = int.from_bytes(length, "little")
    if size > min(_MAX_HEADER_BYTES, stored.size_bytes):
        raise _altered(storage, stored)
    text = bytearray(size)
    _fill(file, memoryview(text), storage, stored)
    if content_hash(length, text) != stored.hash:
        raise _altered(storage, stored)
    try:
        entries = json.loads(text)  # whole, for its hash is that of the name; but who chose the name?
        hashes = entries.pop("__metadata__")
        regions = sorted((*entry["data_offsets"], hashes[name]) for name, entry in entries.items())
        sizes = [(digest, end - start) for start, end, digest in regions]
        edges = [0, *(end for _, end, _ in regions)]
        if [start for start, _, _ in regions] != edges[:-1] or any(type(edge) is not int for edge in edges):
            raise ValueError("tensors that do not lie one after another")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise CheckpointDamaged(
            f"{stored.key} in {storage.url} does not begin as a pack does.", why=f"Reading it gave: {err!r:.200}."
        ) from err
    return sizes, 8 + size


def _fill(file: BinaryIO, view: memoryview, storage: Storage, stored: StoredFile) -> None:
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise CheckpointDamaged(
                f"{stored.key} in {storage.url} has less than its {stored.size_bytes} bytes.", why="It was cut short."
            )
        view = view[count:]


def _altered(storage: Storage, stored: StoredFile) -> CheckpointDamaged:
    return CheckpointDamaged(f"{stored.key} in {storage.url} does not match its hash.", why="Its bytes were altered.")


@contextmanager
def _opened(storage: Storage, stored: StoredFile) -> Iterator[BinaryIO]:
    with telling_damage(storage, stored.key), storage.open(stored.key) as file:
        yield file


@contextmanager
def telling_damage(storage: Storage, key: str) -> Iterator[None]:
    """Turn what the storage raises while *key* is read into what it means for the checkpoint.

    Raises:
        CheckpointDamaged: There is no such file.
        CheckpointUnreadable: There may be one, but the storage did not give it.
        StorageUnavailable: The storage gives nothing now, neither this file nor others.
    """
    try:
        yield
    except StorageUnavailable:
        raise  # no damage: to take an older checkpoint for it would be to lose the newer one
    except FileNotFoundError as err:
        raise CheckpointDamaged(f"{key} is missing in {storage.url}.") from err
    except (IsADirectoryError, NotADirectoryError) as err:
        raise CheckpointDamaged(f"{key} in {storage.url} is no file.", why=f"{err}.") from err
    except OSError as err:
        raise CheckpointUnreadable(f"{key} in {storage.url} cannot be read.", why=f"{err}.") from err
