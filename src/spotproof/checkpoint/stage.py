"""Staging: the copy of the state that training stands still for, into buffers that are allocated once.

Tensors lie side by side in the buffers, so that writing a run of them takes one call and no further copy.
"""

import json
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from spotproof.checkpoint.copying import Block, Copier
from spotproof.checkpoint.memory import staging_buffer
from spotproof.checkpoint.unchanging import MIN_KEPT_BYTES, Unchanging, identity_of

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

    staged: StagedTensor
    view: torch.Tensor
    address: int
    may_be_kept: bool
    """Whether it is large enough to ask if it must be copied at all."""
    is_filled: bool = False

    @property
    def place(self) -> tuple[str, str, tuple[int, ...], memoryview, int, int]:
        """Return what every staging of the tensor begins with."""
        item = self.staged
        return item.name, item.dtype, item.shape, item.buffer, item.start, item.end


_Key = tuple[str, int, torch.dtype, torch.Size]


class Stager:
    """Copy states into host buffers that are kept from one save to the next.

    As long as names, dtypes and shapes stay, nothing is allocated: fresh memory costs page faults that are dearer than
    the copy itself. The caller must not stage again before the last copy is written.
    """

    def __init__(self, unchanging: Unchanging) -> None:
        self._unchanging = unchanging
        self._copier = Copier()
        self._slots: dict[_Key, _Slot] = {}
        self._layout: tuple[list[tuple[str, torch.dtype, torch.Size]], list[_Slot]] = ([], [])
        """Names, dtypes and shapes of the last tensors, and their slots: mostly those of the next."""
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def cold_bytes(self, tensors: list[tuple[str, torch.Tensor]]) -> int:
        """Return how many bytes of *tensors* have no buffer yet."""
        if [(name, tensor.dtype, tensor.shape) for name, tensor in tensors] == self._layout[0]:
            return 0
        return sum(
            _size_bytes(t) for key, (_, t) in zip(_keys(tensors), tensors, strict=True) if key not in self._slots
        )

    def prepare(self, tensors: list[tuple[str, torch.Tensor]]) -> Callable[[], None]:
        """Return what makes the buffers for *tensors* and touches each of their pages, for a thread to run.

        First touching a page takes some ten times as long as copying it, and training need not stand still for it.
        Until it has run, nothing else may be asked of this stager.
        """
        wanted = _wanted(tensors)

        def run() -> None:
            self._make_room(wanted, is_touched=True)

        return run

    def stage(
        self,
        trees: dict[str, Any],
        tensors: list[tuple[str, torch.Tensor]],
        *,
        began: float | None = None,
        copy_all: bool = False,
    ) -> StagedState:
        """Return a copy of *tensors* and the JSON of *trees*, made before this returns.

        The stall counts from *began* (``time.perf_counter``), when the caller started to gather the state. With
        *copy_all* the copy needs nothing of the live tensors any more, so that it may be written at any later time.
        """
        began = time.perf_counter() if began is None else began
        slots = self._slots_for(tensors)
        staged = []
        blocks: list[Block] = []
        on_gpu: dict[torch.device, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        with torch.no_grad():
            for slot, (name, tensor) in zip(slots, tensors, strict=True):
                item = slot.staged
                identity = known = None
                if slot.may_be_kept:
                    identity = identity_of(tensor)
                    if identity is not None and slot.is_filled and not copy_all:
                        known = self._unchanging.known_hash(name, identity)
                    live = tensor if known is not None else None
                    item = StagedTensor(*slot.place, identity, known, live)
                if known is None:
                    if tensor.is_cuda:
                        on_gpu.setdefault(tensor.device, []).append((slot.view, tensor))
                    elif _is_one_block(tensor):
                        blocks.append((slot.address, tensor.data_ptr(), item.end - item.start))
                    else:
                        slot.view.copy_(tensor)
                    slot.is_filled = True
                staged.append(item)
            self._copier.copy(blocks)
            self._copy_from_gpus(on_gpu)
        state = json.dumps(trees, separators=(",", ":")).encode()
        return StagedState(tuple(staged), state, time.perf_counter() - began)

    def _copy_from_gpus(self, pairs: dict[torch.device, list[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        """Copy into pinned buffers, on a stream of each GPU's own. Written with care, not run on a GPU yet."""
        for device, copies in pairs.items():
            stream = self._streams.get(device)
            if stream is None:
                stream = self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for view, tensor in copies:
                    view.copy_(tensor, non_blocking=True)
        for device in pairs:  # all GPUs copy at the same time; what else runs on them is not waited for
            self._streams[device].synchronize()

    def _slots_for(self, tensors: list[tuple[str, torch.Tensor]]) -> list[_Slot]:
        layout = [(name, tensor.dtype, tensor.shape) for name, tensor in tensors]
        if layout != self._layout[0]:
            keys = _keys(tensors)
            if self._slots.keys() != set(keys):
                self._make_room(_wanted(tensors), is_touched=False)
            self._layout = layout, [self._slots[key] for key in keys]
        return self._layout[1]

    def _make_room(self, wanted: "list[_Wanted]", *, is_touched: bool) -> None:
        self._layout = ([], [])
        self._slots = {item.key: self._slots[item.key] for item in wanted if item.key in self._slots}
        # What is no longer used is gone before what is new comes.
        self._slots |= _allocate([item for item in wanted if item.key not in self._slots], is_touched=is_touched)


def _is_one_block(tensor: torch.Tensor) -> bool:
    """Whether the bytes of *tensor* in memory are those of its values, in their order."""
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_neg() and not tensor.is_conj()


def _size_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _keys(tensors: list[tuple[str, torch.Tensor]]) -> list[_Key]:
    keys: list[_Key] = []
    uses: dict[str, int] = {}
    for name, tensor in tensors:
        # Paths may read the same, such as those of the keys 1 and "1"; then they are counted.
        use = uses[name] = uses.get(name, -1) + 1
        keys.append((name, use, tensor.dtype, tensor.shape))
    return keys


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: _Key
    size_bytes: int
    element_size: int
    is_on_gpu: bool


def _wanted(tensors: list[tuple[str, torch.Tensor]]) -> list[_Wanted]:
    return [
        _Wanted(key, _size_bytes(tensor), tensor.element_size(), tensor.is_cuda)
        for key, (_, tensor) in zip(_keys(tensors), tensors, strict=True)
    ]


def _allocate(missing: list[_Wanted], *, is_touched: bool) -> dict[_Key, _Slot]:
    """Return slots in one new buffer."""
    total = sum(item.size_bytes for item in missing)
    buffer = staging_buffer(total, is_pinned=any(item.is_on_gpu for item in missing))
    array = buffer.numpy()
    if is_touched:
        array[:: mmap.PAGESIZE] = 0
    raw = array.data
    slots = {}
    start = 0
    # Larger elements first keeps every view aligned.
    for item in sorted(missing, key=lambda item: -item.element_size):
        name, _, dtype, shape = item.key
        end = start + item.size_bytes
        staged = StagedTensor(name, str(dtype).removeprefix("torch."), tuple(shape), raw, start, end)
        view = buffer[start:end].view(dtype).view(shape)
        slots[item.key] = _Slot(staged, view, view.data_ptr(), item.size_bytes >= MIN_KEPT_BYTES)
        start = end
    return slots
