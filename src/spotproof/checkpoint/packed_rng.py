"""How the states of the generators of a process lie in one string of bytes. Pure; loads no torch.

<I size of torch's>, torch's state · numpy's 624 words, <iid position, has_gauss, gauss · <i?d version, has_next,
next_gauss, and python's words
"""

import struct
from typing import Final, NamedTuple

__all__ = ["MT_WORDS", "NUMPY_TAIL", "PYTHON_HEAD", "SIZE", "PackedRng", "split_rng"]

MT_WORDS: Final = 624
SIZE: Final = struct.Struct("<I")
NUMPY_TAIL: Final = struct.Struct("<iid")
PYTHON_HEAD: Final = struct.Struct("<i?d")
_NUMPY_BYTES: Final = 4 * MT_WORDS + NUMPY_TAIL.size
_PYTHON_BYTES: Final = PYTHON_HEAD.size + 4 * (MT_WORDS + 1)


class PackedRng(NamedTuple):
    """Each generator's part."""

    torch: bytes
    numpy: bytes
    random: bytes
    your_modules: bytes


def split_rng(data: bytes) -> PackedRng | None:
    """Return the parts of what :func:`spotproof.checkpoint.rng.pack_rng` returned; None if *data* is something else."""
    if len(data) < SIZE.size:
        return None
    (size,) = SIZE.unpack_from(data)
    numpy_at = SIZE.size + size
    python_at = numpy_at + _NUMPY_BYTES
    end = python_at + _PYTHON_BYTES
    if len(data) < end + SIZE.size or len(data) != end + SIZE.size + SIZE.unpack_from(data, end)[0]:
        return None
    return PackedRng(data[SIZE.size : numpy_at], data[numpy_at:python_at], data[python_at:end], data[end + SIZE.size :])
