"""The process's random-number generators as one state: python, numpy, torch on the CPU and on every GPU, and those that
modules of the user's own hold as globals."""

import random
from typing import Any

import numpy as np
import torch

from spotproof.checkpoint.generators import pack_generators, set_packed
from spotproof.checkpoint.module_generators import generators_of_modules
from spotproof.checkpoint.packed_rng import MT_WORDS, NUMPY_TAIL, PYTHON_HEAD, SIZE, split_rng

__all__ = ["RngState", "pack_rng", "unpack_rng"]


class RngState:
    """All global generators of this process, as a stateful object."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every generator; draws nothing."""
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
    found = generators_of_modules()
    of_modules = pack_generators(found) if found else b""
    return b"".join(
        (
            SIZE.pack(len(torch_state)),
            torch_state,
            np.asarray(words, dtype="<u4").tobytes(),
            NUMPY_TAIL.pack(position, has_gauss, gauss),
            PYTHON_HEAD.pack(version, next_gauss is not None, next_gauss or 0.0),
            np.asarray(internal, dtype="<u4").tobytes(),
            SIZE.pack(len(of_modules)),
            of_modules,
        )
    )


def unpack_rng(data: bytes) -> None:
    """Set the CPU generators to what :func:`pack_rng` returned."""
    parts = split_rng(data)
    if parts is None:
        raise ValueError(f"{len(data)} bytes are no packed state of the generators.")
    words = np.frombuffer(parts.numpy, dtype="<u4", count=MT_WORDS).astype(np.uint32)
    position, has_gauss, gauss = NUMPY_TAIL.unpack_from(parts.numpy, 4 * MT_WORDS)
    version, has_next, next_gauss = PYTHON_HEAD.unpack_from(parts.random)
    internal = np.frombuffer(parts.random, dtype="<u4", offset=PYTHON_HEAD.size)

    torch.set_rng_state(torch.frombuffer(bytearray(parts.torch), dtype=torch.uint8))
    np.random.set_state(("MT19937", words, position, has_gauss, gauss))
    random.setstate((version, tuple(int(word) for word in internal), next_gauss if has_next else None))
    if parts.your_modules:
        set_packed(generators_of_modules(), parts.your_modules)
