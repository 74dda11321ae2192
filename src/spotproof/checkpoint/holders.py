"""Objects as holders of attributes: what they hold, and how a saved value is put in the place of the current one."""

import collections
import dataclasses
import sys
import sysconfig
from pathlib import PurePath
from typing import Any

import numpy as np

__all__ = ["assign", "held_by", "is_module_of_user", "is_of_user"]

_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def held_by(owner: Any) -> dict[str, Any]:
    """Return the attributes of *owner* by name, those in ``__slots__``, too."""
    held = dict(getattr(owner, "__dict__", ()))
    for kind in type(owner).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            name = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            if name not in ("__dict__", "__weakref__") and hasattr(owner, name):
                held.setdefault(name, getattr(owner, name))
    return held


def is_of_user(kind: type) -> bool:
    """Whether a class is the user's own: its module's file is in no library's place, and it is not ours."""
    return is_module_of_user(sys.modules.get(kind.__module__))


def is_module_of_user(module: Any) -> bool:
    """Whether a module is the user's own."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or file.startswith(_LIBRARIES) or not _INSTALLED.isdisjoint(PurePath(file).parts):
        return False
    return str(getattr(module, "__name__", "")).partition(".")[0] != "spotproof"


def assign(target: Any, name: str, value: Any) -> None:
    """Set an attribute; containers, arrays and dataclasses are changed in place, for others may hold them, too."""
    current = getattr(target, name, None)
    merged = _merged(current, value)
    if merged is not current or current is None:
        setattr(target, name, merged)


def _merged(current: Any, value: Any) -> Any:
    """Return *current*, made equal to *value*; or *value*, where that is of another kind."""
    kind: Any = type(value)
    if type(current) is not kind:
        return value
    if isinstance(value, np.ndarray):
        if current.shape == value.shape and current.dtype == value.dtype and current.flags.writeable:
            np.copyto(current, value)
            return current
        return value
    if dataclasses.is_dataclass(value):
        if kind.__dataclass_params__.frozen:
            return value
        for name, part in held_by(value).items():
            assign(current, name, part)
        return current
    if isinstance(value, (list, collections.deque)):
        items = [
            _merged(old, new) if dataclasses.is_dataclass(new) else new
            for old, new in zip(current, value, strict=False)
        ]
        items.extend(list(value)[len(items) :])
        current.clear()
        current.extend(items)
        return current
    if isinstance(value, (dict, set)):
        kept = dict(current) if isinstance(value, dict) else {}
        current.clear()
        if isinstance(value, dict):
            value = {
                key: _merged(kept[key], item) if _is_record(item, kept, key) else item for key, item in value.items()
            }
        current.update(value)
        return current
    return value


def _is_record(item: Any, kept: dict[Any, Any], key: Any) -> bool:
    return dataclasses.is_dataclass(item) and key in kept
