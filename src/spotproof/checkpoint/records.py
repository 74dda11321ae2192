"""Values of a program's own record types: members of enums, named tuples, dataclasses.

A checkpoint names the type and holds the parts. Reading it imports nothing and calls nothing of the type: a type that
is not loaded, as in a tool that compares checkpoints, or that is of another kind by now, gives the parts as they are.
"""

import dataclasses
import enum
import sys
from typing import Any

from spotproof.checkpoint.holders import held_by

__all__ = ["made_of", "parts_of"]


def parts_of(value: Any) -> tuple[str, str, Any] | None:
    """Return kind, type's name and parts of *value*, or None if it is no record."""
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _named(name) is not kind:  # made in a function, say: it could not be found again
        return None
    if isinstance(value, enum.Enum):
        return ("enum", name, value.name) if value.name in kind.__members__ else None
    if _is_named_tuple(kind):
        return "tuple", name, list(value)
    if _is_dataclass(kind):
        return "dataclass", name, held_by(value)
    return None


def made_of(kind_of_record: str, name: str, parts: Any) -> Any:
    """Return the value that :func:`parts_of` took apart."""
    kind = _named(name)
    if kind_of_record == "enum" and isinstance(kind, enum.EnumMeta) and parts in kind.__members__:
        return kind.__members__[parts]
    if kind_of_record == "tuple":
        return tuple.__new__(kind, parts) if _is_named_tuple(kind) and len(kind._fields) == len(parts) else tuple(parts)
    if kind_of_record == "dataclass" and _is_dataclass(kind):
        made = object.__new__(kind)
        for attribute, part in parts.items():
            object.__setattr__(made, attribute, part)
        return made
    return parts


def _named(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _is_dataclass(kind: Any) -> bool:
    """Whether it is one whose values can be made of their parts, and do nothing when they are freed."""
    return (
        isinstance(kind, type)
        and "__dataclass_params__" in vars(kind)
        and all(base is object or dataclasses.is_dataclass(base) for base in kind.__mro__)
        and not hasattr(kind, "__del__")
    )
