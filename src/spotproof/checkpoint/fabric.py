"""Loaders from ``fabric.setup_dataloaders``: Lightning Fabric's wrapper counts passes, and so tells samplers the epoch.

Lightning is not imported here: if a loader is Fabric's, its module is loaded already.
"""

import copy
import sys
from typing import Any

from spotproof.checkpoint import resumable

__all__ = ["is_of_fabric", "resumable_fabric_loader"]

_MODULES = ("lightning.fabric.wrappers", "lightning_fabric.wrappers")


def is_of_fabric(loader: Any) -> bool:
    """Whether *loader* comes from ``fabric.setup_dataloaders``."""
    kinds = [getattr(sys.modules.get(name), "_FabricDataLoader", None) for name in _MODULES]
    return any(kind is not None and isinstance(loader, kind) for kind in kinds)


def resumable_fabric_loader(loader: Any, on_mismatch: "resumable.OnMismatch | None") -> Any:
    """Return what *loader* is, with a position: that of the loader in it, and the number of passes begun."""
    kind = type(loader)
    positioned = copy.copy(loader)
    positioned._dataloader = resumable.resumable_loader(loader._dataloader, on_mismatch)
    positioned.__class__ = type(f"Resumable{kind.__name__.lstrip('_')}", (_Positioned, kind), {})
    return positioned


class _Positioned:
    """The part that is put in front of Fabric's own class."""

    _dataloader: Any
    _num_iter_calls: int

    @property
    def is_over(self) -> bool:
        return bool(self._dataloader.is_over)

    @property
    def pending(self) -> dict[str, Any] | None:
        state: dict[str, Any] | None = self._dataloader.pending
        return state

    @property
    def reads_again(self) -> bool:
        return bool(self._dataloader.reads_again)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batches handed out so far in this pass."""
        return {"num_passes": self._num_iter_calls, "loader": self._dataloader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from *state* at the next ``iter()``."""
        self._dataloader.load_state_dict(state["loader"])
        # The pass to go on with was counted when it began, and will be when it begins again.
        self._num_iter_calls = state["num_passes"] - (self._dataloader.pending is not None)

    def end_state(self) -> dict[str, Any]:
        """Return the position at the end of a pass, from which the next pass can be begun in another process."""
        return {"num_passes": self._num_iter_calls, "loader": self._dataloader.end_state()}

    def begin_after(self, state: dict[str, Any]) -> None:
        """Begin, at the next ``iter()``, the pass that follows the one whose :meth:`end_state` *state* is."""
        self._dataloader.begin_after(state["loader"])
        self._num_iter_calls = state["num_passes"]
