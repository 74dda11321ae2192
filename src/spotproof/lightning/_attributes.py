"""Plain attributes that training changes: counters, lists of outputs, generators of the user's own objects.

``state_dict`` does not hold them, and a run that is resumed within an epoch needs them: a LightningModule that collects
``self.outputs`` would average half an epoch. Only what changed since the start of the process is saved and set
again, so that a value that the user edits between two attempts keeps its new value.
"""

import collections
import json
import random
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from spotproof.checkpoint.generators import generator_state, set_generator_state
from spotproof.checkpoint.manifest import content_hash
from spotproof.checkpoint.tree import TreeEncoder
from spotproof.errors import UnsafeState

__all__ = ["ChangedAttributes"]

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class ChangedAttributes:
    """Plain public attributes of a LightningModule, and of callbacks that have no ``state_dict`` of their own."""

    def __init__(self, trainer: "pl.Trainer") -> None:
        """Note what is there now, before training changes it."""
        module = trainer.lightning_module
        self._device = module.device
        self._owners: dict[str, tuple[Any, frozenset[str]]] = {
            "module": (module, frozenset(vars(pl.LightningModule())))
        }
        for index, callback in enumerate(trainer.callbacks):  # type: ignore[attr-defined]
            kind = type(callback)
            if kind.state_dict is pl.Callback.state_dict and not kind.__module__.startswith(
                ("lightning.", "spotproof.")
            ):
                self._owners[f"callback {index} {kind.__qualname__}"] = (callback, frozenset())
        self._at_start = {place: _digest(value) for place, value in self._plain()}

    def state_dict(self) -> dict[str, Any]:
        """Return the values of the attributes that changed, by owner and name."""
        state: dict[str, dict[str, Any]] = {}
        for (owner, name), value in self._plain():
            if self._at_start.get((owner, name)) != _digest(value):
                entry = {"value": value, "on_device": _is_on_device(value)}
                if isinstance(value, _GENERATORS):
                    entry = {"generator": generator_state(value)}
                state.setdefault(owner, {})[name] = entry
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what :meth:`state_dict` returned; lists, dicts and sets in place, for others may hold them, too."""
        for owner, attributes in state.items():
            if owner not in self._owners:
                continue
            target = self._owners[owner][0]
            for name, entry in attributes.items():
                if "generator" in entry:
                    if isinstance(getattr(target, name, None), _GENERATORS):
                        set_generator_state(getattr(target, name), entry["generator"])
                else:
                    _assign(target, name, _to(entry["value"], self._device) if entry["on_device"] else entry["value"])

    def _plain(self) -> Iterator[tuple[tuple[str, str], Any]]:
        for owner, (target, not_theirs) in self._owners.items():
            for name, value in list(vars(target).items()):
                if name.startswith("_") or name in not_theirs:
                    continue
                if isinstance(value, _GENERATORS) or _encoded(value) is not None:
                    yield (owner, name), value


def _encoded(value: Any) -> tuple[bytes, list[torch.Tensor]] | None:
    encoder = TreeEncoder(allow_pickle=False)
    try:
        return json.dumps(encoder.encode(value, "")).encode(), [tensor for _, tensor in encoder.tensors]
    except (UnsafeState, RecursionError):
        return None


def _digest(value: Any) -> str:
    if isinstance(value, _GENERATORS):
        return content_hash(json.dumps(generator_state(value)).encode())
    encoded = _encoded(value)
    assert encoded is not None
    text, tensors = encoded
    return content_hash(
        text, *(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data for tensor in tensors)
    )


def _is_on_device(value: Any) -> bool:
    encoded = _encoded(value)
    return encoded is not None and any(tensor.device.type != "cpu" for tensor in encoded[1])


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)({key: _to(item, device) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_to(item, device) for item in value)
    return value


def _assign(target: Any, name: str, value: Any) -> None:
    current: Any = getattr(target, name, None)
    if type(current) is not type(value) or not isinstance(value, (list, dict, set, collections.deque)):
        setattr(target, name, value)
        return
    current.clear()
    if isinstance(value, (list, collections.deque)):
        current.extend(value)
    else:
        current.update(value)
