"""Random-number generators that modules of the user's own hold as globals: ``RNG = np.random.default_rng(0)``."""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from spotproof.checkpoint.generators import Generators, is_generator
from spotproof.checkpoint.holders import is_module_of_user

__all__ = ["generators_of_modules"]

_MAX_ITEMS = 64
"""Longer lists and dicts are data."""


class _Modules:
    """The user's modules, and which of their globals hold a generator or may come to.

    This is asked several times a step, and a program may have thousands of globals. So they are looked through when a
    module or a global comes or goes; between, what is looked at are generators, containers, and what is None.
    """

    def __init__(self) -> None:
        self._newest = (0, "")
        """How many modules there were, and the one that was loaded last."""
        self._modules: list[tuple[str, ModuleType]] = []
        self._watched: dict[str, tuple[ModuleType, int, list[str]]] = {}

    def globals(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (name of the module, name, value) of each global that is watched."""
        newest = (len(sys.modules), next(reversed(sys.modules)))
        if newest != self._newest or any(sys.modules.get(name) is not module for name, module in self._modules):
            loaded = list(sys.modules.items())
            self._modules = [item for item in sorted(loaded, key=lambda item: item[0]) if is_module_of_user(item[1])]
            self._newest = newest
        for module_name, module in self._modules:
            held = vars(module)
            for name in self._names(module_name, module, held):
                yield module_name, name, held.get(name)

    def _names(self, module_name: str, module: ModuleType, held: dict[str, Any]) -> list[str]:
        known, size, names = self._watched.get(module_name, (None, 0, []))
        if known is not module or size != len(held):
            names = [name for name, value in list(held.items()) if _may_lead(name, value)]
            self._watched[module_name] = module, len(held), names
        return names


_modules = _Modules()


def generators_of_modules() -> Generators:
    """Return (path, generator) of the generators that the user's modules hold, also in short lists and dicts."""
    found: dict[int, tuple[str, Any]] = {}
    for module, name, value in _modules.globals():
        if is_generator(value):
            found.setdefault(id(value), (f"{module}.{name}", value))
        elif isinstance(value, (list, tuple, dict)) and len(value) <= _MAX_ITEMS:
            for key, item in list(value.items()) if isinstance(value, dict) else enumerate(value):
                if is_generator(item):
                    found.setdefault(id(item), (f"{module}.{name}.{key}", item))
    return list(found.values())


def _may_lead(name: str, value: Any) -> bool:
    is_container = isinstance(value, (list, tuple, dict)) and not name.startswith("__")
    return value is None or is_container or is_generator(value)
