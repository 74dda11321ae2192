"""The order in which DistributedDataParallel sums gradients, so that a resume adds in the order of an undisturbed run.

DDP packs gradients into buckets, and after its first backward pass packs them anew, in the order in which they became
ready. Where in a bucket a gradient lies decides in which order the ranks' values are added, and with more than two
ranks another order gives other last bits. A resumed process would sum its first step in the old packing. So it is told
the order: by a backward pass of zeros, parameter after parameter.

Source: torch 2.13.0, ``nn/parallel/distributed.py``, ``torch/csrc/distributed/c10d/reducer.cpp``.
"""

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

__all__ = ["BucketOrder", "bucket_order"]

_MIN_RANKS = 3
"""Two values give the same sum in either order."""


def bucket_order(model: Any) -> "BucketOrder | None":
    """Return the order of *model*'s gradients as a stateful object; None if it does not matter, or never changes."""
    if not isinstance(model, DistributedDataParallel) or torch.distributed.get_world_size() < _MIN_RANKS:
        return None
    # These are never packed anew, or by rules of their own; hooks that were registered may keep a state.
    is_special = model.find_unused_parameters or model.static_graph or bool(model._comm_hooks)
    return None if is_special else BucketOrder(model)


class BucketOrder:
    """Notes in which order gradients become ready in the first backward pass; see :func:`bucket_order`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._parameters: list[torch.nn.Parameter] = self._model._build_params_for_reducer()[0]
        self._order: list[int] = []
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._is_ready(number))
            for number, parameter in enumerate(self._parameters)
        ]

    def _is_ready(self, number: int) -> None:
        if number in self._order:
            self._order.clear()  # a pass that did not reach all of them
        self._order.append(number)
        if len(self._order) == len(self._parameters):
            self._forget_hooks()

    def _forget_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the order, or none if there was no whole pass yet."""
        return {"order": list(self._order) if not self._hooks else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next step sum in the order of *state*. Collective: it makes DDP sum zeros once."""
        order = state["order"]
        if order is None or sorted(order) != list(range(len(self._parameters))) or not self._hooks:
            return
        self._forget_hooks()
        self._order = list(order)
        gradients = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        reducer = self._model.reducer
        with torch.enable_grad():
            reducer.prepare_for_forward()
            reducer.prepare_for_backward([])
            for number in order:
                zero: Any = (torch.zeros_like(self._parameters[number]) * self._parameters[number]).sum()
                zero.backward()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
