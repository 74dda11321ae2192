"""Staging: the copy of the state that training stands still for, into buffers that are allocated once.

The buffers have the layout of the packs' data, so that writing needs no further copy. A pack is a safetensors file of
about 64 MiB: 8 bytes of header length, the header as JSON, then the tensors' bytes without gaps. Tensors with larger
elements come first in a pack, which keeps every one aligned.

Source of the file format: github.com/huggingface/safetensors, README "Format".
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["PACK_BYTES", "StagedPack", "StagedState", "StagedTensor", "Stager"]

PACK_BYTES = 64 * 2**20
"""Size after which a pack is closed. Small enough that an unchanged part of a model is recognised as unchanged, large
enough that object stores are used well."""

_SAFETENSORS_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float64: "F64",
    torch.complex64: "C64",
}


@dataclass(frozen=True, slots=True)
class StagedTensor:
    """Where one tensor lies in a pack."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """First byte in the pack's data."""
    end: int


@dataclass(frozen=True, slots=True)
class StagedPack:
    """A pack ready to be hashed and written."""

    header: bytes
    data: memoryview
    tensors: tuple[StagedTensor, ...]


@dataclass(frozen=True, slots=True)
class StagedState:
    """A copy of the whole state at one step; valid until the stager's next call."""

    packs: tuple[StagedPack, ...]
    state: bytes
    """The JSON of the non-tensor state."""
    stall_seconds: float


@dataclass(frozen=True, slots=True)
class _Slot:
    """The buffer of one pack, and a view of it in the shape of each tensor, in reference order."""

    pack: StagedPack
    views: tuple[torch.Tensor, ...]


class Stager:
    """Copy states into host buffers that are kept from one save to the next.

    As long as names, dtypes and shapes stay, nothing is allocated: fresh memory costs page faults that are dearer than
    the copy itself. The caller must not stage again before the last copy is written.
    """

    def __init__(self) -> None:
        self._layout: list[tuple[str, torch.dtype, torch.Size]] = []
        self._slots: list[_Slot] = []

    def stage(
        self, trees: dict[str, Any], tensors: list[tuple[str, torch.Tensor]], *, began: float | None = None
    ) -> StagedState:
        """Return a copy of *tensors* and the JSON of *trees*, made before this returns.

        The stall counts from *began* (``time.perf_counter``), when the caller started to gather the state.
        """
        began = time.perf_counter() if began is None else began
        layout = [(name, tensor.dtype, tensor.shape) for name, tensor in tensors]
        if layout != self._layout:
            self._slots = _allocate(tensors)
            self._layout = layout
        views = [view for slot in self._slots for view in slot.views]
        on_device = {tensor.device for _, tensor in tensors if tensor.device.type == "cuda"}
        with torch.no_grad():
            for view, (_, tensor) in zip(views, tensors, strict=True):
                view.copy_(tensor, non_blocking=bool(on_device))
        for device in on_device:
            # Not measured on a GPU yet. One wait for all copies; the buffers are pinned, so they ran back to back.
            torch.cuda.synchronize(device)
        state = json.dumps(trees, separators=(",", ":")).encode()
        return StagedState(tuple(slot.pack for slot in self._slots), state, time.perf_counter() - began)


def _allocate(tensors: list[tuple[str, torch.Tensor]]) -> list[_Slot]:
    slots: list[_Slot] = []
    group: list[tuple[str, torch.Tensor]] = []
    size = 0
    for name, tensor in tensors:
        group.append((name, tensor))
        size += tensor.numel() * tensor.element_size()
        if size >= PACK_BYTES:
            slots.append(_allocate_pack(group))
            group, size = [], 0
    if group:
        slots.append(_allocate_pack(group))
    return slots


def _allocate_pack(tensors: list[tuple[str, torch.Tensor]]) -> _Slot:
    total = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors)
    pinned = any(tensor.device.type == "cuda" for _, tensor in tensors)
    buffer = torch.empty(total, dtype=torch.uint8, pin_memory=pinned)
    places: dict[int, tuple[StagedTensor, torch.Tensor]] = {}
    start = 0
    by_element_size = sorted(enumerate(tensors), key=lambda item: -item[1][1].element_size())
    for index, (name, tensor) in by_element_size:
        end = start + tensor.numel() * tensor.element_size()
        view = buffer[start:end].view(tensor.dtype).view(tensor.shape)
        dtype = str(tensor.dtype).removeprefix("torch.")
        places[index] = (StagedTensor(name, dtype, tuple(tensor.shape), start, end), view)
        start = end
    ordered = [places[index] for index in range(len(tensors))]
    placed = tuple(place for place, _ in ordered)
    pack = StagedPack(_header(placed), buffer.numpy().data, placed)
    return _Slot(pack, tuple(view for _, view in ordered))


def _header(tensors: tuple[StagedTensor, ...]) -> bytes:
    entries: dict[str, Any] = {}
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        torch_dtype: torch.dtype = getattr(torch, tensor.dtype)
        known = _SAFETENSORS_DTYPES.get(torch_dtype)
        # A dtype that the format has no name for is kept as bytes; the manifest knows what it is.
        shape = list(tensor.shape) if known else [tensor.end - tensor.start]
        entries[tensor.name] = {"dtype": known or "U8", "shape": shape, "data_offsets": [tensor.start, tensor.end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
