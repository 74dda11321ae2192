"""Calls put around a method of one object."""

from collections.abc import Callable
from typing import Any

__all__ = ["around"]


def around(target: Any, name: str, *, before: Callable[[], None] | None = None, after: Any = None) -> None:
    """Call *before* and *after* each call of ``target.name()``; ``del target.name`` ends it."""
    original = getattr(target, name)

    def call() -> None:
        if before is not None:
            before()
        original()
        if after is not None:
            after()

    setattr(target, name, call)
