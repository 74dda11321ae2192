"""The states of torchmetrics, which ``state_dict`` leaves out, and what wrappers and collections remember."""

from typing import Any

import torch
import torchmetrics
from torchmetrics import MetricCollection
from torchmetrics.wrappers import MetricTracker

__all__ = ["grow", "link", "restore", "state_of"]


def state_of(module: torch.nn.Module) -> dict[str, Any] | None:
    """Return what *module* has counted, or None if it is no metric; tensors are the live ones."""
    if isinstance(module, torchmetrics.Metric):
        return {
            "states": {name: getattr(module, name) for name in module._defaults},
            "update_count": module._update_count,
        }
    if isinstance(module, MetricCollection):
        groups = [[number, list(names)] for number, names in module._groups.items()]
        return {"groups": groups, "checked": module._groups_checked, "is_copy": module._state_is_copy}
    if isinstance(module, MetricTracker):
        return {"length": len(module), "incremented": module._increment_called}
    return None


def grow(module: Any, state: dict[str, Any] | None) -> None:
    """Give a tracker as many metrics as it had."""
    if isinstance(module, MetricTracker) and state is not None:
        while len(module) < state["length"]:
            module.increment()


def restore(module: Any, state: dict[str, Any]) -> None:
    """Set what :func:`state_of` returned."""
    if isinstance(module, torchmetrics.Metric):
        for name, value in state["states"].items():
            setattr(module, name, _to(value, module.device))
        module._update_count = state["update_count"]
        module._computed = None
    elif isinstance(module, MetricCollection):
        module._groups = dict(state["groups"])
        module._groups_checked, module._state_is_copy = state["checked"], state["is_copy"]
    elif isinstance(module, MetricTracker):
        module._increment_called = state["incremented"]


def link(module: Any) -> None:
    """Let the metrics of a collection share states again, once they are restored: only one of a group is updated."""
    if isinstance(module, MetricCollection) and module._groups_checked and not module._state_is_copy:
        module._compute_groups_create_state_ref()


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to(item, device) for item in value)
    return value
