"""A small value as JSON, and what tells that it is another than before without writing it out."""

import base64
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
import xxhash

from spotproof.checkpoint.tree import TreeEncoder, decode_tree
from spotproof.errors import UnsafeState

__all__ = ["SmallValue", "encode_small"]

_MAX_ITEMS = 1024
_MAX_BYTES = 2**20
"""What holds more is data, which no training changes."""


@dataclass(frozen=True, slots=True)
class SmallValue:
    """A value, taken apart: tensors and arrays are referred to, not copied."""

    tree: Any
    tensors: tuple[torch.Tensor, ...] = ()

    def fingerprint(self) -> str:
        """Return what differs if, and only if, the value does."""
        digests = [
            [str(tensor.dtype), list(tensor.shape), xxhash.xxh3_128_hexdigest(_bytes(tensor))]
            for tensor in self.tensors
        ]
        return json.dumps([self.tree, digests])

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON-able data."""
        tensors = [
            [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), base64.b64encode(_bytes(tensor)).decode()]
            for tensor in self.tensors
        ]
        return {"tree": self.tree, "tensors": tensors}

    @staticmethod
    def from_json(saved: dict[str, Any]) -> Any:
        """Return the value that :meth:`to_json` was of."""
        tensors = [
            torch.frombuffer(bytearray(base64.b64decode(data)), dtype=getattr(torch, kind)).reshape(shape)
            if data
            else torch.empty(shape, dtype=getattr(torch, kind))
            for kind, shape, data in saved["tensors"]
        ]
        return decode_tree(saved["tree"], tensors)


def encode_small(value: Any) -> SmallValue | None:
    """Return *value* taken apart; None if it is large, or could not be read back without running code."""
    if not _is_small(value):
        return None
    encoder = TreeEncoder(allow_pickle=False)
    try:
        tree = encoder.encode(value, "")
    except (UnsafeState, RecursionError):
        return None
    return SmallValue(tree, tuple(tensor for _, tensor in encoder.tensors))


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _is_small(value: Any) -> bool:
    """Whether *value* is so small that it can be looked at at each save, however it is nested."""
    items_left, bytes_left = _MAX_ITEMS, _MAX_BYTES
    queue = [value]
    while queue:
        item = queue.pop()
        items_left -= 1
        bytes_left -= len(item) if isinstance(item, (str, bytes, bytearray)) else getattr(item, "nbytes", 0)
        if items_left < 0 or bytes_left < 0:
            return False
        if isinstance(item, (list, tuple, dict, set, frozenset, deque)):
            if len(item) > items_left:
                return False
            queue.extend(item.values() if isinstance(item, dict) else item)
    return True
