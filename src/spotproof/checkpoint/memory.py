"""Host memory that is cheap to touch for the first time, and stays so when loader workers are forked.

The kernel makes a page when it is first written: 4 KiB at a time that costs several times the copy it is made for,
2 MiB at a time a fraction of it, where the machine has the memory. A virtual machine whose host takes free memory back,
in just such blocks, has to fetch it again: then a large page is the dearer one, by a factor of four where we measured
it. A staging buffer is made once, beside the training, and has them all the same; for memory that a resume waits for
they are made one by one, for as long as each is cheap. And after a fork every page is made anew by the next write, for
as long as the child might read it: a save beside loader workers would pay for its buffers at each epoch again.
"""

import ctypes
import mmap
import sys
import time
from collections.abc import Callable

import torch

__all__ = ["empty", "staging_buffer"]

_HUGE_PAGE_BYTES = 2 * 2**20
_DEAR_SECONDS = 0.002
"""Of processor time for one large page. One from memory that is there takes 0.2 to 0.4 ms, the small pages in its place
1.6 ms, one from memory that the host must bring 6 ms; on 2 cores of a virtual machine."""
_MADV_WIPEONFORK = 18
"""Not MADV_DONTFORK: the child would have a hole there, and unmap whatever it put into it when it drops the buffer.
Source: Linux, include/uapi/asm-generic/mman-common.h."""


def staging_buffer(size_bytes: int, *, is_pinned: bool = False) -> torch.Tensor:
    """Return *size_bytes* of memory of this process alone: a child finds it empty, where the kernel can do that."""
    if is_pinned or size_bytes < mmap.PAGESIZE:
        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=is_pinned)
    block = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in (getattr(mmap, "MADV_HUGEPAGE", None), _MADV_WIPEONFORK if sys.platform == "linux" else None):
        if advice is not None:
            try:
                block.madvise(advice)
            except OSError:  # a kernel that was built without, or is older
                continue
    return torch.frombuffer(block, dtype=torch.uint8)


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return ``torch.empty``, of large pages where the tensor is large enough to have some and they are cheap."""
    tensor = torch.empty(shape, dtype=dtype)
    first = -(-tensor.data_ptr() // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    end = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
    if end <= first or _madvise is None or _madvise(first, end - first, mmap.MADV_HUGEPAGE) != 0:
        return tensor
    for address in range(first, end, _HUGE_PAGE_BYTES):
        began = time.thread_time()
        ctypes.memset(address, 0, 1)
        if time.thread_time() - began > _DEAR_SECONDS:
            _madvise(address, end - address, mmap.MADV_NOHUGEPAGE)
            break
    return tensor


def _find_madvise() -> Callable[[int, int, int], int] | None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return function


_madvise = _find_madvise()
