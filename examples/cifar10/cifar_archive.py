"""The original ``cifar-10-python.tar.gz``: fetch it, check it, read it without running what is in it.

The batches are pickles, and unpickling runs code of the file's choosing. Here nothing can be made from them but plain
values and arrays of plain numbers.

Source of the layout: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import codecs
import gzip
import hashlib
import io
import os
import pickle
import tarfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spotproof.errors import SpecError

ARCHIVE_NAME = "cifar-10-python.tar.gz"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
NUM_CLASSES = 10
IMAGE_SHAPE = (3, 32, 32)
TRAIN_MEMBERS = tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6))
TEST_MEMBER = "cifar-10-batches-py/test_batch"

MEMBER_MAX_BYTES = 128 * 2**20
"""A batch of 10,000 images has 31 MB, or up to 46 MB as newer Pythons pickle it; more is no batch."""
DOWNLOAD_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Images:
    """Pictures and what they show."""

    pixels: np.ndarray
    """(count, channels, height, width) uint8."""
    labels: np.ndarray
    """(count,) int64."""


def read_archive(path: Path) -> tuple[Images, Images]:
    """Return the training and the test images; what is returned has been checked from the first byte to the last.

    Any number of images a batch is accepted, so that a smaller archive of the same layout can stand in.

    Raises:
        SpecError: There is no such file, or it is damaged, cut short, or something else.
    """
    members = _read_members(path)
    missing = [name for name in (*TRAIN_MEMBERS, TEST_MEMBER) if name not in members]
    if missing:
        raise SpecError(
            f"{path} is not the CIFAR-10 archive for Python.",
            why=f"It lacks {', '.join(missing)}.",
            do=f"Put the file from {URL} there.",
        )
    batches = [_parse_batch(path, name, members[name]) for name in TRAIN_MEMBERS]
    train = Images(np.concatenate([b.pixels for b in batches]), np.concatenate([b.labels for b in batches]))
    return train, _parse_batch(path, TEST_MEMBER, members[TEST_MEMBER])


def _read_members(path: Path) -> dict[str, bytes]:
    wanted = {*TRAIN_MEMBERS, TEST_MEMBER}
    members = {}
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if member.name not in wanted or not member.isfile() or member.size > MEMBER_MAX_BYTES:
                        continue
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file
                    members[member.name] = content.read()
            while stream.read(2**20):  # up to the checksum, which stands at the very end
                pass
    except FileNotFoundError as err:
        raise SpecError(
            f"{path} does not exist.",
            do=f"Put the file from {URL} there, set data.data_dir to its folder, or set data.download=true.",
        ) from err
    except (OSError, EOFError, zlib.error, tarfile.TarError) as err:
        raise SpecError(
            f"{path} is damaged, cut short, or no .tar.gz file.",
            why=f"{type(err).__name__}: {err}.",
            do=f"Get it again from {URL}; its sha256 is {SHA256}.",
        ) from err
    return members


def _parse_batch(path: Path, name: str, content: bytes) -> Images:
    try:
        batch = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"], batch[b"labels"]
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
            raise ValueError("'data' is no two-dimensional array of bytes")
        if pixels.shape[1] != np.prod(IMAGE_SHAPE):
            raise ValueError(f"a row of 'data' has {pixels.shape[1]} bytes, not {np.prod(IMAGE_SHAPE)}")
        if not isinstance(labels, list) or not all(type(n) is int and 0 <= n < NUM_CLASSES for n in labels):
            raise ValueError("'labels' is no list of numbers from 0 to 9")
        if len(labels) != len(pixels) or not labels:
            raise ValueError(f"{len(labels)} labels for {len(pixels)} images")
    except Exception as err:  # a pickle from elsewhere can fail in any way
        raise SpecError(
            f"{name} in {path} is no batch of CIFAR-10 images.",
            why=f"{type(err).__name__}: {err}.",
            do=f"Get the archive again from {URL}; its sha256 is {SHA256}.",
        ) from err
    return Images(np.ascontiguousarray(pixels).reshape(-1, *IMAGE_SHAPE), np.array(labels, dtype=np.int64))


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Return bytes from how Python 3 spells them in the old pickle protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return codecs.encode(text, "latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Make dicts, lists, numbers, text, bytes and arrays of numbers; refuse everything else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        # numpy moved its core to numpy._core in version 2; files hold either spelling.
        match module, name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return _empty_array
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return _number_type
            case "_codecs", "encode":
                return _encode_latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither a plain value nor an array")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """Return the empty array that the pickle then fills."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array of an unknown kind")
    return np.empty(0, dtype=np.int8)


def _number_type(code: str | bytes, *_: Any) -> np.dtype:
    """Return the number type of that *code*, for example ``u1``; object arrays are refused."""
    dtype = np.dtype(code.decode("ascii") if isinstance(code, bytes) else code)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"an array of {dtype}")
    return dtype


def download_archive(path: Path, url: str = URL, sha256: str = SHA256) -> None:
    """Make *path* the archive, verified; nothing stands there until it is.

    Raises:
        SpecError: It cannot be fetched, or is not the file that it should be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response, part.open("wb") as file:
            while chunk := response.read(2**20):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise SpecError(
                f"What {url} sent is not the CIFAR-10 archive.",
                why=f"Its sha256 is {digest.hexdigest()}, not {sha256}.",
                do="Try again, or get the file elsewhere and set data.data_dir to its folder.",
            )
        part.replace(path)
    except OSError as err:
        raise SpecError(
            f"{url} could not be fetched to {path}.",
            why=f"{type(err).__name__}: {err}.",
            do="Get the file on another machine and set data.data_dir to its folder.",
        ) from err
    finally:
        part.unlink(missing_ok=True)
