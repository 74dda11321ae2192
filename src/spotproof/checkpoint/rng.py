"""The process's random-number generators as one state: python, numpy, torch on the CPU and on every GPU, and those that
modules of the user's own hold as globals."""

import random
import struct
import sys
from typing import Any

import numpy as np
import torch

from spotproof.checkpoint.generators import GENERATORS, pack_generators, set_packed
from spotproof.checkpoint.holders import is_module_of_user

__all__ = ["RngState", "pack_rng", "unpack_rng"]

_MT_WORDS = 624
_MAX_ITEMS = 64
"""Longer lists and dicts are data."""


class RngState:
    """All global generators of this process, as a stateful object."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every generator; draws nothing."""
        _places.look()
        state: dict[str, Any] = {"cpu": pack_rng()}
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set every generator to *state*."""
        unpack_rng(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])


def pack_rng() -> bytes:
    """Return the state of the CPU generators of torch, numpy and python: about 10 kB, made in microseconds.

    A packed form, because loader workers send it with every batch, and because reading it back must not unpickle.
    """
    torch_state = torch.get_rng_state().numpy().tobytes()
    # The legacy global generator is always a Mersenne Twister unless a program replaces it.
    name, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    if name != "MT19937":
        raise ValueError(f"numpy's global generator is a {name}; only MT19937, the default, can be saved.")
    version, internal, next_gauss = random.getstate()
    return b"".join(
        (
            struct.pack("<I", len(torch_state)),
            torch_state,
            np.asarray(words, dtype="<u4").tobytes(),
            struct.pack("<iid", position, has_gauss, gauss),
            struct.pack("<i?d", version, next_gauss is not None, next_gauss or 0.0),
            np.asarray(internal, dtype="<u4").tobytes(),
            pack_generators(found) if (found := _of_modules()) else b"",
        )
    )


def unpack_rng(data: bytes) -> None:
    """Set the CPU generators to what :func:`pack_rng` returned."""
    (size,) = struct.unpack_from("<I", data)
    at = 4
    torch_state = torch.frombuffer(bytearray(data[at : at + size]), dtype=torch.uint8)
    at += size
    words = np.frombuffer(data, dtype="<u4", count=_MT_WORDS, offset=at).astype(np.uint32)
    at += 4 * _MT_WORDS
    position, has_gauss, gauss = struct.unpack_from("<iid", data, at)
    at += struct.calcsize("<iid")
    version, has_next, next_gauss = struct.unpack_from("<i?d", data, at)
    at += struct.calcsize("<i?d")
    internal = np.frombuffer(data, dtype="<u4", count=_MT_WORDS + 1, offset=at)
    at += 4 * (_MT_WORDS + 1)

    torch.set_rng_state(torch_state)
    np.random.set_state(("MT19937", words, position, has_gauss, gauss))
    random.setstate((version, tuple(int(word) for word in internal), next_gauss if has_next else None))
    if of_modules := data[at:]:
        set_packed(_of_modules(), of_modules)


class _Places:
    """Where the user's modules hold generators: looked for again at each save, and when another module is loaded."""

    def __init__(self) -> None:
        self._num_loaded = 0
        self._found: list[tuple[str, str]] = []

    def look(self) -> None:
        """Look for them now; later calls go by the names found."""
        names = sorted(name for name, module in list(sys.modules.items()) if is_module_of_user(module))
        self._num_loaded = len(sys.modules)
        self._found = [
            (name, attribute)
            for name in names
            for attribute, value in list(vars(sys.modules[name]).items())
            if any(isinstance(item, GENERATORS) for _, item in _items(attribute, value))
        ]

    def found(self) -> list[tuple[str, str]]:
        """Return (module, attribute) of each."""
        if len(sys.modules) != self._num_loaded:
            self.look()
        return self._found


_places = _Places()


def _of_modules() -> list[tuple[str, Any]]:
    """Return (path, generator) of the generators that the user's modules hold, also in lists and dicts."""
    found: dict[int, tuple[str, Any]] = {}
    for name, attribute in _places.found():
        for path, item in _items(attribute, getattr(sys.modules.get(name), attribute, None)):
            if isinstance(item, GENERATORS):
                found.setdefault(id(item), (f"{name}.{path}", item))
    return list(found.values())


def _items(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and len(value) <= _MAX_ITEMS and not name.startswith("__"):
        return [(f"{name}.{key}", item) for key, item in value.items()]
    if isinstance(value, (list, tuple)) and len(value) <= _MAX_ITEMS:
        return [(f"{name}.{index}", item) for index, item in enumerate(value)]
    return [(name, value)]
