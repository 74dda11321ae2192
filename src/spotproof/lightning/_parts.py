"""The objects of a training that may hold state which no ``state_dict`` of Lightning's knows.

From the LightningModule, its submodules, the callbacks and the data module, what their attributes lead to: modules and
metrics in plain lists, gradient scalers, meters of the user's own classes. Data is not walked into.
"""

import dis
import enum
import functools
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
import torchmetrics
from torch.utils.data import DataLoader, Dataset, Sampler

from spotproof.checkpoint.generators import GENERATORS
from spotproof.checkpoint.holders import held_by, is_of_user

__all__ = ["Part", "parts"]

_MAX_DEPTH = 4
_MAX_PARTS = 10_000
_MAX_ITEMS = 64
"""Longer lists and dicts are data, not parts."""
_NOT_THEIRS = frozenset(
    {*vars(pl.LightningModule()), *vars(pl.LightningDataModule()), "_hparams", "_hparams_name", "_hparams_initial"}
    | {"_log_hyperparams", "_metric_attributes", "_param_requires_grad_state", "_trainer", "trainer"}
) - {"training"}
_OF_METRICS = frozenset(vars(torchmetrics.MeanMetric())) - {"training"}
_OF_TRAINERS = frozenset({"accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"})
_OF_OPTIMIZERS = frozenset(vars(torch.optim.SGD([torch.zeros(1)])))
_OURS_AND_LIGHTNINGS = ("lightning", "spotproof")
_OPAQUE = (
    Dataset,
    DataLoader,
    Sampler,
    torch.Tensor,
    PurePath,
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
)


class Part(NamedTuple):
    """One object that may hold state."""

    place: str
    """Says the same thing in every process of the same program."""
    target: Any
    only: frozenset[str] | None = None
    """The attributes that count, if not all of them do."""
    without: frozenset[str] = frozenset()
    """Attributes that do not count."""
    is_plain: bool = False
    """Whether only numbers, texts and flags count: torch's own modules, whose containers are settings."""
    is_loose: bool = False
    """Whether its tensors are in nobody's ``state_dict``."""
    is_stateful: bool = False
    """Whether it says by itself what its state is."""


def parts(trainer: "pl.Trainer") -> Iterator[Part]:
    """Yield each of them once, the outer ones first."""
    walk = _Walk(trainer)
    yield Part("trainer", trainer, only=_OF_TRAINERS)
    yield from walk.module("module", trainer.lightning_module, is_loose=False)
    for index, callback in enumerate(trainer.callbacks):  # type: ignore[attr-defined]
        kind: Any = type(callback)
        # What of the user's has a state_dict of its own says by it all that there is to say.
        if _package(kind) not in _OURS_AND_LIGHTNINGS and _package(_definer(kind, "state_dict")) == "lightning":
            yield from walk.object(f"callback {index} {kind.__qualname__}", callback, 0, _set_by_lightning(kind))
    for index, optimizer in enumerate(trainer.optimizers):
        if is_of_user(type(optimizer)):
            yield Part(f"optimizer {index}", optimizer, without=_OF_OPTIMIZERS)
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if datamodule is not None:
        yield from walk.object("datamodule", datamodule, 0)


class _Walk:
    def __init__(self, trainer: "pl.Trainer") -> None:
        known = [trainer, trainer.strategy, *trainer.loggers, *trainer.optimizers]
        known += [config.scheduler for config in trainer.lr_scheduler_configs]
        self._seen = {id(value) for value in known}
        self._not_to_enter = {id(value) for value in trainer.callbacks}  # type: ignore[attr-defined]
        theirs = [trainer.lightning_module, trainer.datamodule, *trainer.callbacks]  # type: ignore[attr-defined]
        self._packages = {_package(type(value)) for value in theirs} - {"lightning", "spotproof", "builtins"}
        self._num = 0

    def module(self, place: str, root: torch.nn.Module, *, is_loose: bool) -> Iterator[Part]:
        """Yield *root* and its submodules, then what they lead to."""
        found = []
        for name, module in root.named_modules():
            if id(module) not in self._seen:
                self._seen.add(id(module))
                found.append((f"{place}.{name}" if name else place, module))
        for at, module in found:
            is_metric = isinstance(module, (torchmetrics.Metric, torchmetrics.MetricCollection))
            of_metric = _OF_METRICS | frozenset(getattr(module, "_defaults", ()))
            without = of_metric if is_metric else _NOT_THEIRS
            is_plain = not is_metric and type(module).__module__.startswith("torch.")
            yield Part(at, module, without=without, is_plain=is_plain, is_loose=is_loose)
            if not is_plain and not is_metric:
                yield from self._held(at, module, without, 0)

    def object(self, place: str, value: Any, depth: int, without: frozenset[str] = frozenset()) -> Iterator[Part]:
        """Yield *value*, an object of the user's, and what it leads to."""
        self._seen.add(id(value))
        self._num += 1
        without |= _NOT_THEIRS
        yield Part(place, value, without=without)
        yield from self._held(place, value, without, depth)

    def _held(self, place: str, owner: Any, without: frozenset[str], depth: int) -> Iterator[Part]:
        for name, value in held_by(owner).items():
            if name not in without:
                yield from self._reached(f"{place}.{name}", value, depth + 1)

    def _reached(self, place: str, value: Any, depth: int) -> Iterator[Part]:
        if type(value) in (int, float, bool, str, type(None)) or isinstance(value, (*_OPAQUE, *GENERATORS)):
            return
        if isinstance(value, (list, tuple, dict)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            if len(value) <= _MAX_ITEMS and depth <= _MAX_DEPTH:
                for key, item in list(items):
                    yield from self._reached(f"{place}.{key}", item, depth + 1)
            return
        if id(value) in self._seen or id(value) in self._not_to_enter or self._num > _MAX_PARTS:
            return
        if isinstance(value, torch.nn.Module):
            yield from self.module(place, value, is_loose=True)
        elif any(hasattr(value, name) for name in ("__iter__", "__next__", "__getitem__")):
            return  # data, whose position is not for us to set
        elif callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
            self._seen.add(id(value))
            if _package(type(value)) not in ("lightning", "spotproof"):
                yield Part(place, value, only=frozenset(), is_stateful=True)
        elif depth <= _MAX_DEPTH and not isinstance(value, enum.Enum) and self._is_theirs(type(value)):
            yield from self.object(place, value, depth)

    def _is_theirs(self, kind: type) -> bool:
        """Whether a class is the user's own: a library's objects are not for us to change."""
        return _package(kind) in self._packages or is_of_user(kind)


def _definer(kind: type, name: str) -> type:
    return next(base for base in kind.__mro__ if name in vars(base))


@functools.lru_cache(maxsize=256)
def _set_by_lightning(kind: type) -> frozenset[str]:
    """Return the attributes that Lightning's part of a class sets: its own ``state_dict`` says what counts of them.

    Remembered, because it is asked at each save, and takes tens of milliseconds.
    """
    functions = [
        value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        for base in kind.__mro__
        if _package(base) == "lightning"
        for value in vars(base).values()
    ]
    codes = [value.__code__ for value in functions if isinstance(value, types.FunctionType)]
    return frozenset(
        each.argval for code in codes for each in dis.get_instructions(code) if each.opname == "STORE_ATTR"
    )


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
