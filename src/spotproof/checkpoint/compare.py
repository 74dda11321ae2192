"""Are two checkpoints the same, bit for bit, and if not, where do they differ? Loads no torch."""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from spotproof.checkpoint.choose import read_file
from spotproof.checkpoint.manifest import Manifest, TensorEntry
from spotproof.checkpoint.packed_rng import PackedRng, split_rng
from spotproof.storage import Storage

__all__ = ["NOT_COMPARED", "Difference", "find_differences", "first_difference"]

NOT_COMPARED = (
    *("callbacks", "hyper_parameters", "datamodule_hyper_parameters"),
    *("loggers", "model_checkpoints", "clocks"),
)
"""Parts whose plain values may differ between equal runs: they hold paths and wall-clock times."""

_NAMED_BY_PATHS = ("best_k_models",)
"""Parts whose tensors, too, are left out: their names are the paths of files."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two checkpoints differ."""

    where: str
    """Path in the state tree, such as ``lightning/state_dict/conv1.weight``."""
    detail: str
    """What is there on either side."""
    generators: tuple[str, ...] = ()
    """If it is the state of random-number generators: which differ, of torch, numpy, random and your modules."""


def first_difference(
    a: Manifest, storage_a: Storage, b: Manifest, storage_b: Storage, *, ignore: tuple[str, ...] = NOT_COMPARED
) -> Difference | None:
    """Return where the checkpoints *a* and *b* first differ, or None if they are identical bit for bit.

    See :func:`find_differences`.
    """
    return next(find_differences(a, storage_a, b, storage_b, ignore=ignore), None)


def find_differences(
    a: Manifest, storage_a: Storage, b: Manifest, storage_b: Storage, *, ignore: tuple[str, ...] = NOT_COMPARED
) -> Iterator[Difference]:
    """Yield every place where the checkpoints *a* and *b* differ: tensors in the order of the state, then plain values.

    Compared are the step, every tensor's dtype, shape and content hash (weights, optimizer state, random-number
    generators, metrics, weights that callbacks hold), and every plain value (loop counters, schedulers, data position).

    Args:
        a: One checkpoint, in *storage_a*.
        storage_a: Where *a* lies.
        b: The other, in *storage_b*.
        storage_b: Where *b* lies.
        ignore: Names of subtrees whose plain values are left out.

    Raises:
        CheckpointDamaged: A state file does not verify.
    """
    if a.step != b.step:
        yield Difference("step", f"{a.step} and {b.step}")
    if len(a.ranks) != len(b.ranks):
        yield Difference("ranks", f"{len(a.ranks)} and {len(b.ranks)}")
    for rank, (files_a, files_b) in enumerate(zip(a.ranks, b.ranks, strict=False)):
        tensors_a = {t.name: t for t in files_a.tensors if not _is_ignored(t.name, _NAMED_BY_PATHS)}
        tensors_b = {t.name: t for t in files_b.tensors if not _is_ignored(t.name, _NAMED_BY_PATHS)}
        prefix = f"rank {rank}: " if len(a.ranks) > 1 else ""
        for difference in _tensors(tensors_a, tensors_b):
            yield replace(difference, where=prefix + difference.where)
        leaves_a = dict(_leaves(json.loads(read_file(storage_a, files_a.state)), ignore))
        leaves_b = dict(_leaves(json.loads(read_file(storage_b, files_b.state)), ignore))
        for difference in _values(leaves_a, leaves_b):
            yield replace(difference, where=prefix + difference.where)


def _is_ignored(path: str, ignore: tuple[str, ...]) -> bool:
    return any(part in ignore for part in path.split("/"))


def _tensors(a: dict[str, TensorEntry], b: dict[str, TensorEntry]) -> Iterator[Difference]:
    for name in [*a, *(name for name in b if name not in a)]:
        if name not in a or name not in b:
            yield Difference(name, "only in the first" if name in a else "only in the second")
            continue
        one, other = a[name], b[name]
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            yield Difference(name, f"{one.dtype}{list(one.shape)} and {other.dtype}{list(other.shape)}")
        elif one.hash != other.hash:
            yield Difference(name, f"same shape {list(one.shape)}, other bytes ({one.hash[:8]}… and {other.hash[:8]}…)")


def _values(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Difference]:
    for name in [*a, *(name for name in b if name not in a)]:
        if name not in a or name not in b:
            yield Difference(name, "only in the first" if name in a else "only in the second")
        elif a[name] != b[name]:
            yield _generators(name, a[name], b[name]) or Difference(name, f"{_short(a[name])} and {_short(b[name])}")


def _generators(name: str, a: Any, b: Any) -> Difference | None:
    """Return which generators differ; None if these are not their states."""
    one, other = _packed_rng(name, a), _packed_rng(name, b)
    if one is None or other is None:
        return None
    differing = tuple(
        part.replace("_", " ") for part in PackedRng._fields if getattr(one, part) != getattr(other, part)
    )
    return Difference(name.removesuffix("/$bytes"), f"other state of {' and of '.join(differing)}", differing)


def _packed_rng(name: str, leaf: Any) -> PackedRng | None:
    if not name.endswith("$bytes"):
        return None
    try:
        return split_rng(base64.b64decode(leaf[1], validate=True))
    except (binascii.Error, TypeError, ValueError):
        return None


def _leaves(tree: Any, ignore: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and "$tensor" in tree:
        return  # compared by content; its number depends on the packing
    if isinstance(tree, dict):
        pairs = list(tree.items())
        if len(pairs) == 1 and pairs[0][0].startswith("$") and isinstance(pairs[0][1], list):
            pairs = [(str(index), value) for index, value in enumerate(pairs[0][1])]
    elif isinstance(tree, list):
        pairs = [(str(index), value) for index, value in enumerate(tree)]
    else:
        yield path, (type(tree).__name__, tree)
        return
    for name, value in pairs:
        if name not in ignore:
            yield from _leaves(value, ignore, f"{path}/{name}" if path else name)


def _short(leaf: Any) -> str:
    text = repr(leaf[1])
    return text if len(text) <= 60 else text[:57] + "…"
