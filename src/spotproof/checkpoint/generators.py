"""Random-number generators that objects own, such as ``self.rng = np.random.default_rng(0)`` in a dataset."""

import functools
import json
import random
import types
from collections import deque
from typing import Any

import numpy as np
import torch

from spotproof.checkpoint.holders import held_by

__all__ = [
    "GENERATORS",
    "Generators",
    "find_generators",
    "generator_state",
    "is_generator",
    "load_generators",
    "new_generator",
    "pack_generators",
    "set_generator_state",
    "set_packed",
]

_MAX_DEPTH = 6
_MAX_OBJECTS = 1000
_MAX_ITEMS = 64
"""Longer lists and dicts are data, not parts."""

Generators = list[tuple[str, Any]]
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_NOT_OWNED = frozenset({"trainer", "_trainer"})
"""Attributes that lead away from what an object owns to the whole training."""
_LEAD_NOWHERE = (
    *(str, bytes, int, float, type(None), type, torch.Tensor, np.ndarray),
    *(torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
)
"""They hold none, or are saved by themselves."""
_PLAIN_KEYS = (str, bytes, int, float, type(None))
_LENGTH_OF_RANDOM = 3
"""Version, internal state, next gauss; torch's state is thousands of bytes."""


def is_generator(value: object) -> bool:
    """Whether *value* is a generator: as ``isinstance`` says, which takes four times as long for whole modules."""
    return _is_kind(type(value))  # type: ignore[arg-type]  # classes can be hashed; typeshed looks at their instances


@functools.lru_cache(maxsize=4096)
def _is_kind(kind: type) -> bool:
    return issubclass(kind, GENERATORS)


def find_generators(root: Any) -> Generators:
    """Return (path, generator) of every generator that *root* reaches.

    That is through attributes and short containers, and through what functions have bound: closures, defaults, partial
    arguments, the object of a method.
    """
    found: Generators = []
    seen = {id(root)}
    queue: deque[tuple[str, Any, int]] = deque([("", root, 0)])
    while queue and len(seen) < _MAX_OBJECTS:
        path, value, depth = queue.popleft()
        if is_generator(value):
            found.append((path, value))
            continue
        if depth == _MAX_DEPTH:
            continue
        for name, part in _parts(value):
            if id(part) not in seen:
                seen.add(id(part))
                queue.append((f"{path}.{name}", part, depth + 1))
    return found


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, _LEAD_NOWHERE):
        return []
    if isinstance(value, (list, tuple)):
        return [(str(index), item) for index, item in enumerate(value)] if len(value) <= _MAX_ITEMS else []
    if isinstance(value, dict):
        if len(value) > _MAX_ITEMS:
            return []
        # By its place where a key is an object: the text of a tensor, say, takes milliseconds to make.
        return [
            (str(key) if isinstance(key, _PLAIN_KEYS) else f"#{index}", item)
            for index, (key, item) in enumerate(list(value.items()))
        ]
    if isinstance(value, types.FunctionType):
        return _bound(value)
    if isinstance(value, types.MethodType):
        return [("__self__", value.__self__), ("__func__", value.__func__)]
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    return [(name, part) for name, part in held_by(value).items() if name not in _NOT_OWNED]


def _bound(function: types.FunctionType) -> list[tuple[str, Any]]:
    bound: dict[str, Any] = dict(function.__kwdefaults__ or {})
    bound.update((f"__defaults__.{index}", value) for index, value in enumerate(function.__defaults__ or ()))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            bound[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return list(bound.items())


def generator_state(generator: Any) -> Any:
    """Return the state of *generator* as plain JSON values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state().tolist()
    if isinstance(generator, np.random.Generator):
        return _plain(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return _plain(generator.get_state(legacy=False))
    version, internal, gauss = generator.getstate()
    return [version, list(internal), gauss]


def set_generator_state(generator: Any, state: Any) -> None:
    """Set *generator* to what :func:`generator_state` returned."""
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.tensor(state, dtype=torch.uint8))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = _with_arrays(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(_with_arrays(state))
    else:
        version, internal, gauss = state
        generator.setstate((version, tuple(internal), gauss))


def new_generator(state: Any) -> Any:
    """Return a generator of the kind that :func:`generator_state` returned *state* of, set to it."""
    generator: Any
    if isinstance(state, dict):
        is_legacy = "has_gauss" in state
        name = state["bit_generator"]
        if name not in _BIT_GENERATORS:
            raise ValueError(f"{name!r} is no bit generator of numpy's own.")
        generator = np.random.RandomState() if is_legacy else np.random.Generator(getattr(np.random, name)())
    else:
        generator = random.Random() if len(state) == _LENGTH_OF_RANDOM else torch.Generator()
    set_generator_state(generator, state)
    return generator


def pack_generators(generators: Generators) -> bytes:
    """Return the states of *generators*, for a few of them in some tens of microseconds."""
    return json.dumps([[path, generator_state(generator)] for path, generator in generators]).encode()


def set_packed(generators: Generators, packed: bytes) -> None:
    """Set those of *generators* that :func:`pack_generators` knew, by their paths."""
    states = dict(json.loads(packed))
    for path, generator in generators:
        if path in states:
            set_generator_state(generator, states[path])


def load_generators(root: Any, packed: bytes) -> list[str]:
    """Set the generators that *root* reaches to what :func:`pack_generators` returned, by their paths.

    One that *root* makes only when it needs it, and has not made yet, is made now. Returns the paths of those that are
    not there and could not be made.
    """
    states: dict[str, Any] = dict(json.loads(packed))
    lost: list[str] = []
    if not states:
        return lost
    for path, generator in find_generators(root):
        if path in states:
            set_generator_state(generator, states.pop(path))
    for path, state in states.items():
        owner_path, _, name = path.rpartition(".")
        owner = _reached(root, owner_path)
        if name in held_by(owner) and getattr(owner, name) is None:
            setattr(owner, name, new_generator(state))
        else:
            lost.append(path.removeprefix("."))
    return lost


def _reached(root: Any, path: str) -> Any:
    """Return what lies at *path* of :func:`find_generators`, or None."""
    for name in path.split(".")[1:]:
        root = dict(_parts(root)).get(name)
    return root


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, np.ndarray):
        return {"$array": state.tolist(), "dtype": state.dtype.str}
    return state.item() if isinstance(state, np.generic) else state


def _with_arrays(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    if "$array" in state:
        return np.array(state["$array"], dtype=state["dtype"])
    return {key: _with_arrays(value) for key, value in state.items()}
