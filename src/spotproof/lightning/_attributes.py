"""What training changes in objects that no ``state_dict`` tells of: counters, lists of outputs, meters, modes, metrics.

A run that is resumed within an epoch needs them: a LightningModule that collects ``self.outputs`` would average half an
epoch, a backbone that a callback thawed would be frozen again. Of plain attributes only what changed since the start of
the process is saved and set again, so that a value that the user edits between two attempts keeps its new value.
"""

import collections
import copy
import io
import json
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from spotproof.checkpoint.generators import (
    GENERATORS,
    find_generators,
    generator_state,
    load_generators,
    pack_generators,
    set_generator_state,
)
from spotproof.checkpoint.holders import assign, held_by
from spotproof.checkpoint.manifest import content_hash
from spotproof.checkpoint.tree import TreeEncoder
from spotproof.errors import UnsafeState
from spotproof.lightning import _metrics as metrics
from spotproof.lightning._parts import Part, parts

__all__ = ["ChangedAttributes"]

_SCALARS = frozenset({int, float, bool, str, type(None)})
_MISSING = object()
_CONTAINERS = (list, dict, set, collections.deque)
_FEW_ITEMS = 8
"""So few numbers are compared as they are, which is faster than by a hash."""
_HASHED_BYTES = 2**16
"""A larger tensor is taken for unchanged if it is the same object and torch has counted no change."""
_HASHED_ITEMS = 1024
"""Outside of modules a longer container is data, taken for unchanged if it is the same object with the same length."""


class ChangedAttributes:
    """The parts of a training, see :mod:`spotproof.lightning._parts`, as one stateful object."""

    def __init__(self, trainer: "pl.Trainer") -> None:
        """Note what is there now, before training changes it."""
        self._trainer = trainer
        self._device = trainer.lightning_module.device
        self._scalars: dict[str, dict[str, Any]] = {}
        self._others: dict[tuple[str, str], Callable[[Any], bool]] = {}
        self._lengths: dict[str, int] = {}
        """Of containers that a checkpoint can't hold."""
        self._is_trainable = dict(_trainable(trainer))
        for part in parts(trainer):
            scalars = self._scalars[part.place] = {}
            for name, value in _attributes(part):
                if type(value) in _SCALARS:
                    scalars[name] = value
                elif (unchanged := _mark(value, is_data=not isinstance(part.target, torch.nn.Module))) is not None:
                    self._others[part.place, name] = unchanged
                elif isinstance(value, _CONTAINERS):
                    self._lengths[f"{part.place}.{name}"] = len(value)

    def state_dict(self) -> dict[str, Any]:
        """Return what changed, by place and name."""
        state: dict[str, dict[str, Any]] = {}
        for part in parts(self._trainer):
            entry: dict[str, Any] = {}
            values = {name: _saved(value) for name, value in self._changed(part)}
            if values:
                entry["attributes"] = values
            if part.is_stateful:
                entry["state"] = part.target.state_dict()
            if isinstance(part.target, torch.nn.Module):
                entry.update(_of_module(part))
            if entry:
                state[part.place] = entry
        trainable = {name: is_so for name, is_so in _trainable(self._trainer) if self._is_trainable.get(name) != is_so}
        return {"parts": state, "trainable": trainable}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what :meth:`state_dict` returned; lists, dicts and sets in place, for others may hold them, too."""
        saved = state["parts"]
        for part in parts(self._trainer):
            metrics.grow(part.target, saved.get(part.place, {}).get("metric"))
        found = [(part, saved[part.place]) for part in parts(self._trainer) if part.place in saved]
        for part, entry in found:
            for name, value in entry.get("attributes", {}).items():
                self._set(part.target, name, value)
            if "state" in entry:
                part.target.load_state_dict(entry["state"])
            for name, tensor in entry.get("tensors", {}).items():
                _set_tensor(part.target, name, tensor)
            if "metric" in entry:
                metrics.restore(part.target, entry["metric"])
        for part, entry in found:
            if "metric" in entry:
                metrics.link(part.target)
        for name, parameter in self._trainer.lightning_module.named_parameters():
            if name in state["trainable"]:
                parameter.requires_grad_(state["trainable"][name])

    def plain(self) -> dict[str, dict[str, Any]]:
        """Return the attributes alone, copied."""
        return {
            part.place: values
            for part in parts(self._trainer)
            if (values := {name: copy.deepcopy(_saved(value)) for name, value in self._changed(part)})
        }

    def load_plain(self, saved: dict[str, dict[str, Any]]) -> None:
        """Set what :meth:`plain` returned."""
        for part in parts(self._trainer):
            for name, value in saved.get(part.place, {}).items():
                self._set(part.target, name, value)

    def lost(self) -> Iterator[tuple[str, str]]:
        """Yield what changes and can't be saved, and what it is: iterators, and containers that grew."""
        for part in parts(self._trainer):
            for name, value in _attributes(part):
                place, kind = f"{part.place}.{name}", type(value).__qualname__
                is_iterator = isinstance(value, Iterator) and not isinstance(value, io.IOBase)
                if is_iterator and not hasattr(value, "state_dict"):
                    yield place, f"the position of an iterator ({kind})"
                    continue
                has_grown = isinstance(value, _CONTAINERS) and len(value) != self._lengths.get(place, 0)
                if has_grown and _encoded(_last_of(value)) is None and not _generators(value):
                    yield place, f"a {kind} of what is no plain value"

    def _changed(self, part: Part) -> Iterator[tuple[str, Any]]:
        scalars = self._scalars.get(part.place, {})
        for name, value in _attributes(part):
            if type(value) in _SCALARS:
                if _differs(value, scalars.get(name, _MISSING)):
                    yield name, value
            elif (unchanged := self._others.get((part.place, name))) is not None:
                if not unchanged(value):
                    yield name, value
            elif isinstance(value, GENERATORS) or _encoded(value) is not None or _generators(value):
                yield name, value

    def _set(self, target: Any, name: str, entry: dict[str, Any]) -> None:
        if "generators" in entry:
            load_generators(getattr(target, name, None), entry["generators"])
        elif "generator" in entry:
            if isinstance(getattr(target, name, None), GENERATORS):
                set_generator_state(getattr(target, name), entry["generator"])
        else:
            assign(target, name, _to(entry["value"], self._device) if entry["on_device"] else entry["value"])


def _attributes(part: Part) -> list[tuple[str, Any]]:
    target, without = part.target, part.without
    if part.only is not None:
        return [(name, getattr(target, name)) for name in sorted(part.only)]
    if part.is_plain:
        return [
            (name, value) for name, value in held_by(target).items() if type(value) in _SCALARS and name not in without
        ]
    held = [(name, value) for name, value in held_by(target).items() if name not in without]
    return [(name, value) for name, value in held if not isinstance(value, torch.nn.Module)]


def _trainable(trainer: "pl.Trainer") -> list[tuple[str, bool]]:
    return [(name, parameter.requires_grad) for name, parameter in trainer.lightning_module.named_parameters()]


# -- has it changed? ---------------------------------------------------------------------------------------------------


def _differs(one: Any, other: Any) -> bool:
    # By repr, which tells -0.0 from 0.0 and takes one nan for another.
    return one is not other and (type(one) is not type(other) or repr(one) != repr(other))


def _mark(value: Any, *, is_data: bool) -> Callable[[Any], bool] | None:
    """Return what says whether a value is still this one; None if a checkpoint can't hold such a value."""
    if isinstance(value, torch.Tensor) and value.nbytes > _HASHED_BYTES:
        same, version = weakref.ref(value), value._version
        return lambda other: isinstance(other, torch.Tensor) and other is same() and other._version == version
    if is_data and isinstance(value, (list, dict, set, tuple)) and len(value) > _HASHED_ITEMS:
        identity, length = id(value), len(value)
        return lambda other: id(other) == identity and len(other) == length
    if is_data and isinstance(value, np.ndarray) and value.nbytes > _HASHED_BYTES:
        identity = id(value)
        return lambda other: id(other) == identity
    if type(value) in (list, tuple) and len(value) <= _FEW_ITEMS and all(type(item) in _SCALARS for item in value):
        kind, text = type(value), repr(value)
        return lambda other: type(other) is kind and len(other) <= _FEW_ITEMS and repr(other) == text
    digest = _digest(value)
    return None if digest is None else lambda other: _digest(other) == digest


def _encoded(value: Any) -> tuple[bytes, list[torch.Tensor]] | None:
    encoder = TreeEncoder(allow_pickle=False)
    try:
        return json.dumps(encoder.encode(value, "")).encode(), [tensor for _, tensor in encoder.tensors]
    except (UnsafeState, RecursionError):
        return None


def _last_of(container: Any) -> Any:
    """Return something that is in *container*: of a long one that grows, all would take long at each save."""
    if not container:
        return None
    if isinstance(container, dict):
        key = next(reversed(container))
        return {key: container[key]}
    return next(iter(container)) if isinstance(container, set) else container[-1]


def _generators(value: Any) -> list[tuple[str, Any]]:
    """Return the generators that a value leads to which a checkpoint can't hold: a list of them, say, or a library's
    object."""
    is_other = isinstance(value, torch.nn.Module) or hasattr(value, "state_dict") or hasattr(value, "trainer")
    return [] if is_other else find_generators(value)


def _digest(value: Any) -> str | None:
    if isinstance(value, GENERATORS):
        return content_hash(json.dumps(generator_state(value)).encode())
    encoded = _encoded(value)
    if encoded is None:
        return None
    text, tensors = encoded
    return content_hash(
        text, *(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data for tensor in tensors)
    )


# -- there and back ----------------------------------------------------------------------------------------------------


def _saved(value: Any) -> dict[str, Any]:
    if isinstance(value, GENERATORS):
        return {"generator": generator_state(value)}
    if type(value) in _SCALARS:
        return {"value": value, "on_device": False}
    encoded = _encoded(value)
    if encoded is None:
        return {"generators": pack_generators(_generators(value))}
    return {"value": value, "on_device": any(t.device.type != "cpu" for t in encoded[1])}


def _of_module(part: Part) -> dict[str, Any]:
    """Return what ``state_dict`` leaves out of a module: buffers that do not persist, and what metrics count."""
    held = vars(part.target)
    tensors = {name: held["_buffers"][name] for name in held["_non_persistent_buffers_set"]}
    if part.is_loose:
        tensors = {**held["_parameters"], **held["_buffers"]}
    entry: dict[str, Any] = {}
    if kept := {name: tensor for name, tensor in tensors.items() if tensor is not None}:
        entry["tensors"] = kept
    metric = None if part.is_plain else metrics.state_of(part.target)
    return entry if metric is None else {**entry, "metric": metric}


def _set_tensor(module: Any, name: str, tensor: torch.Tensor) -> None:
    current = getattr(module, name, None)
    if isinstance(current, torch.Tensor) and current.shape == tensor.shape and current.dtype == tensor.dtype:
        with torch.no_grad():
            current.copy_(tensor)
    elif name in module._buffers:
        module._buffers[name] = tensor.to(current.device) if isinstance(current, torch.Tensor) else tensor


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        moved = copy.copy(value)  # of its own kind: some are not made of pairs
        moved.update({key: _to(item, device) for key, item in value.items()})
        return moved
    if isinstance(value, tuple):
        return tuple.__new__(type(value), [_to(item, device) for item in value])
    return [_to(item, device) for item in value] if isinstance(value, list) else value
