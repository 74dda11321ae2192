"""State trees: nested Python values with tensors, to and from JSON plus a list of tensors.

Why not pickle: loading a checkpoint must not run code from it, equal states must give equal bytes, and they must be
readable where torch is not installed. Plain values are JSON; everything else is a one-key object whose key starts
with ``$``. What has no such form goes through ``torch.save`` and must be readable with ``weights_only=True``, else it
is refused now, while it can still be mended, and not at the resume.
"""

import base64
import collections
import io
import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spotproof.checkpoint import records
from spotproof.errors import UnsafeState

__all__ = ["TreeEncoder", "decode_tree"]

_PLAIN = (type(None), bool, int, str)
_FACTORIES: dict[str, Callable[[], Any]] = {"int": int, "float": float, "list": list, "dict": dict, "set": set}


class TreeEncoder:
    """Turn state trees into JSON values and collect their tensors.

    Tensors that share memory, dtype, shape and strides (tied weights) are stored once. Nothing is copied: the
    collected tensors are the live ones.
    """

    def __init__(self, *, allow_pickle: bool = True) -> None:
        """Start empty; without *allow_pickle*, refuse what has no form of its own, even if it could be read back."""
        self._allow_pickle = allow_pickle
        self.tensors: list[tuple[str, torch.Tensor]] = []
        """(path of its first use, tensor), in the order of the references."""
        self._seen: dict[tuple[Any, ...], int] = {}

    def encode(self, value: Any, path: str) -> Any:
        """Return *value* as JSON-able data.

        Raises:
            UnsafeState: Something in it could not be read back without running code; names its path and type.
        """
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if kind is dict:
            return self._encode_dict(value, path)
        if kind is list:
            return [self.encode(item, f"{path}/{index}") for index, item in enumerate(value)]
        if kind is tuple:
            return {"$tuple": [self.encode(item, f"{path}/{index}") for index, item in enumerate(value)]}
        if isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized:
            if kind in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
                return {"$tensor": self._reference(value.detach(), path)}
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            return {"$ndarray": self._reference(torch.from_numpy(np.ascontiguousarray(value)), path)}
        elif isinstance(value, np.generic) and value.dtype.kind in "biufc":
            return {"$npscalar": [value.dtype.str, _to_text(value.tobytes())]}
        return self._encode_rare(value, path)

    def _encode_dict(self, value: dict[Any, Any], path: str) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.encode(item, f"{path}/{key}") for key, item in value.items()}
        return {"$dict": self._pairs(value, path)}

    def _pairs(self, value: "collections.abc.Mapping[Any, Any]", path: str) -> list[Any]:
        if not self._allow_pickle and any(isinstance(key, torch.Tensor) for key in value):
            raise _refused(value, path)  # they stand for themselves, and could only come back as others
        return [[self.encode(k, f"{path}/{k}"), self.encode(v, f"{path}/{k}")] for k, v in value.items()]

    def _encode_rare(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind in (bytes, bytearray):
            return {"$" + kind.__name__: _to_text(value)}
        if kind is collections.OrderedDict:
            return {"$ordered": self._pairs(value, path)}
        if kind is collections.Counter:
            return {"$counter": self._pairs(value, path)}
        if kind is collections.deque:
            items = [self.encode(item, f"{path}/{index}") for index, item in enumerate(value)]
            return {"$deque": [value.maxlen, items]}
        if kind is collections.defaultdict:
            name = value.default_factory.__name__ if value.default_factory is not None else None
            if name is None or _FACTORIES.get(name) is value.default_factory:
                return {"$default": [name, self._pairs(value, path)]}
        if kind in (set, frozenset):
            # Sorted, because sets of strings change their order from process to process.
            return {"$" + kind.__name__: [self.encode(item, path) for item in sorted(value, key=repr)]}
        if kind is complex:
            return {"$complex": [self.encode(value.real, path), self.encode(value.imag, path)]}
        if kind is torch.Size:
            return {"$size": list(value)}
        if kind is torch.dtype:
            return {"$dtype": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"$device": str(value)}
        if isinstance(value, pathlib.PurePath):
            return {"$path": str(value)}
        if (record := records.parts_of(value)) is not None:
            kind_of_record, name, parts = record
            return {"$record": [kind_of_record, name, self.encode(parts, path)]}
        if not self._allow_pickle:
            raise _refused(value, path)
        return {"$torch": _to_text(_checked_pickle(value, path))}

    def _reference(self, tensor: torch.Tensor, path: str) -> int:
        identity = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() == 0 or identity not in self._seen:
            self._seen[identity] = len(self.tensors)
            self.tensors.append((path, tensor))
        return self._seen[identity]


def _checked_pickle(value: Any, path: str) -> bytes:
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except Exception as err:  # the value's own __reduce__ may raise anything
        raise _refused(value, path) from err
    return buffer.getvalue()


def _refused(value: Any, path: str) -> UnsafeState:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return UnsafeState(
        f"The state holds a {kind} at {path!r}, which could not be read back safely.",
        why="Reading a checkpoint runs no code from it, so only plain values, tensors and arrays can be stored.",
        do="Return plain values from the `state_dict` or `on_save_checkpoint` that produced it, or allow the type "
        f"with torch.serialization.add_safe_globals([{type(value).__qualname__}]) in your script.",
    )


def decode_tree(data: Any, tensors: list[torch.Tensor]) -> Any:
    """Return the state tree that :class:`TreeEncoder` made *data* from.

    Args:
        data: JSON value.
        tensors: What the references point to, in their order.
    """
    if isinstance(data, list):
        return [decode_tree(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) == 1:
        ((tag, body),) = data.items()
        if tag.startswith("$"):
            return _decode_tagged(tag, body, tensors)
    return {key: decode_tree(item, tensors) for key, item in data.items()}


def _decode_tagged(tag: str, body: Any, tensors: list[torch.Tensor]) -> Any:
    def decoded() -> list[Any]:
        return [decode_tree(item, tensors) for item in body]

    def pairs(items: list[Any]) -> list[tuple[Any, Any]]:
        return [(decode_tree(key, tensors), decode_tree(item, tensors)) for key, item in items]

    match tag:
        case "$tensor":
            return tensors[body]
        case "$ndarray":
            return tensors[body].numpy()
        case "$float":
            return float(body)
        case "$tuple":
            return tuple(decoded())
        case "$dict":
            return dict(pairs(body))
        case "$npscalar":
            return np.frombuffer(_to_bytes(body[1]), dtype=np.dtype(body[0]))[0]
        case "$bytes":
            return _to_bytes(body)
        case "$bytearray":
            return bytearray(_to_bytes(body))
        case "$ordered":
            return collections.OrderedDict(pairs(body))
        case "$counter":
            return collections.Counter(dict(pairs(body)))
        case "$deque":
            return collections.deque([decode_tree(item, tensors) for item in body[1]], maxlen=body[0])
        case "$default":
            factory = _FACTORIES[body[0]] if body[0] is not None else None
            return collections.defaultdict(factory, pairs(body[1]))
        case "$set":
            return set(decoded())
        case "$frozenset":
            return frozenset(decoded())
        case "$complex":
            return complex(*decoded())
        case "$size":
            return torch.Size(body)
        case "$dtype":
            return getattr(torch, body)
        case "$device":
            return torch.device(body)
        case "$path":
            return pathlib.Path(body)
        case "$record":
            return records.made_of(body[0], body[1], decode_tree(body[2], tensors))
        case "$torch":
            return torch.load(io.BytesIO(_to_bytes(body)), weights_only=True)
        case _:
            raise ValueError(f"Unknown tag {tag!r}: the checkpoint was written by a newer version of Spotproof.")


def _to_text(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")


def _to_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
