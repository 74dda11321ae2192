"""Staging: the copy of the state that training stands still for, into buffers that are allocated once.

Tensors lie side by side in the buffers, so that writing a run of them takes one call and no further copy.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import torch

from spotproof.checkpoint.unchanging import Unchanging, identity_of

__all__ = ["StagedState", "StagedTensor", "Stager"]


@dataclass(frozen=True, slots=True)
class StagedTensor:
    """A copy of one tensor: bytes *start* to *end* of a buffer."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: memoryview
    start: int
    end: int
    identity: tuple[int, int] | None = None
    """See :func:`spotproof.checkpoint.unchanging.identity_of`."""
    known_hash: str | None = None
    """Set if the tensor was not copied now: the hash of the earlier copy that lies here..."""
    live: torch.Tensor | None = None
    """...and the tensor itself, whose bytes the writer must find to be the same."""

    @property
    def data(self) -> memoryview:
        """Return the copy's bytes."""
        return self.buffer[self.start : self.end]

    @property
    def size_bytes(self) -> int:
        """Return the size of the tensor."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class StagedState:
    """A copy of the whole state at one step; valid until the stager's next call."""

    tensors: tuple[StagedTensor, ...]
    """In the order of the state tree's references."""
    state: bytes
    """The JSON of the non-tensor state."""
    stall_seconds: float


@dataclass(slots=True)
class _Slot:
    """The place of one tensor in a buffer, and a view of it in the tensor's shape."""

    buffer: memoryview
    start: int
    end: int
    view: torch.Tensor
    is_filled: bool = False


_Key = tuple[str, int, torch.dtype, torch.Size]


class Stager:
    """Copy states into host buffers that are kept from one save to the next.

    As long as names, dtypes and shapes stay, nothing is allocated: fresh memory costs page faults that are dearer than
    the copy itself. The caller must not stage again before the last copy is written.
    """

    def __init__(self, unchanging: Unchanging) -> None:
        self._unchanging = unchanging
        self._slots: dict[_Key, _Slot] = {}

    def stage(
        self, trees: dict[str, Any], tensors: list[tuple[str, torch.Tensor]], *, began: float | None = None
    ) -> StagedState:
        """Return a copy of *tensors* and the JSON of *trees*, made before this returns.

        The stall counts from *began* (``time.perf_counter``), when the caller started to gather the state.
        """
        began = time.perf_counter() if began is None else began
        slots = self._slots_for(tensors)
        on_device = {tensor.device for _, tensor in tensors if tensor.device.type == "cuda"}
        staged = []
        with torch.no_grad():
            for slot, (name, tensor) in zip(slots, tensors, strict=True):
                known = self._unchanging.known_hash(name, tensor) if slot.is_filled else None
                if known is None:
                    slot.view.copy_(tensor, non_blocking=bool(on_device))
                    slot.is_filled = True
                staged.append(
                    StagedTensor(
                        name,
                        str(tensor.dtype).removeprefix("torch."),
                        tuple(tensor.shape),
                        slot.buffer,
                        slot.start,
                        slot.end,
                        identity_of(tensor),
                        known,
                        tensor if known is not None else None,
                    )
                )
        for device in on_device:
            # Not measured on a GPU yet. One wait for all copies; the buffers are pinned, so they ran back to back.
            torch.cuda.synchronize(device)
        state = json.dumps(trees, separators=(",", ":")).encode()
        return StagedState(tuple(staged), state, time.perf_counter() - began)

    def _slots_for(self, tensors: list[tuple[str, torch.Tensor]]) -> list[_Slot]:
        keys: list[_Key] = []
        uses: dict[str, int] = {}
        for name, tensor in tensors:
            # Paths may read the same, such as those of the keys 1 and "1"; then they are counted.
            use = uses[name] = uses.get(name, -1) + 1
            keys.append((name, use, tensor.dtype, tensor.shape))
        if self._slots.keys() != set(keys):
            kept = {key: self._slots[key] for key in keys if key in self._slots}
            missing = [(key, tensor) for key, (_, tensor) in zip(keys, tensors, strict=True) if key not in kept]
            self._slots = kept  # what is no longer used goes before what is new comes
            self._slots = {**kept, **_allocate(missing)}
        return [self._slots[key] for key in keys]


def _allocate(missing: list[tuple[_Key, torch.Tensor]]) -> dict[_Key, _Slot]:
    """Return slots in one new buffer."""
    total = sum(tensor.numel() * tensor.element_size() for _, tensor in missing)
    pinned = any(tensor.device.type == "cuda" for _, tensor in missing)
    buffer = torch.empty(total, dtype=torch.uint8, pin_memory=pinned)
    raw = buffer.numpy().data
    slots = {}
    start = 0
    # Larger elements first keeps every view aligned.
    for key, tensor in sorted(missing, key=lambda item: -item[1].element_size()):
        end = start + tensor.numel() * tensor.element_size()
        slots[key] = _Slot(raw, start, end, buffer[start:end].view(tensor.dtype).view(tensor.shape))
        start = end
    return slots
