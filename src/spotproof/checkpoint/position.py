"""Where a loop of one's own stands in its loader: within a pass, or between two.

A :func:`~spotproof.checkpoint.resumable_loader` that was read to its end says nothing but that. Whether the loop has
seen this end tells the difference: if not, the resumed loop must see it and do what it does after a pass (validate,
step its scheduler); if it has, that is done, and what follows is the next pass.
"""

from typing import Any, Protocol

__all__ = ["LoaderPosition", "PositionedLoader"]


class PositionedLoader(Protocol):
    """What :func:`~spotproof.checkpoint.resumable_loader` returns."""

    @property
    def is_over(self) -> bool: ...

    @property
    def pending(self) -> dict[str, Any] | None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...

    def end_state(self) -> dict[str, Any]: ...

    def begin_after(self, state: dict[str, Any], /) -> None: ...


class LoaderPosition:
    """The position of a loader as a stateful object that may be saved at any time, not only within a pass."""

    def __init__(self, loader: PositionedLoader) -> None:
        self._loader = loader
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as the loop that reads the loader knows it."""
        if self._loader.pending is not None and self._loaded is not None:
            return self._loaded
        is_over = self._loader.is_over
        return {"is_over": is_over, "loader": self._loader.end_state() if is_over else self._loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there at the next ``iter()``."""
        self._loaded = state
        if state["is_over"]:
            self._loader.begin_after(state["loader"])
        else:
            self._loader.load_state_dict(state["loader"])
