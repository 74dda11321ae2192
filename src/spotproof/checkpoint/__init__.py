"""Checkpoints: stage → write → commit → verify → restore → retain. Knows tensors, neither Lightning nor SageMaker.

In: objects with ``state_dict`` / ``load_state_dict``. Out: verified checkpoints in a storage, and events. Who may
import it: everything above except ``local``, which copies files and does not know what a checkpoint is.

Importing this package loads no torch; :class:`Checkpointer` and what handles tensors are loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

from spotproof.checkpoint.choose import committed_steps, newest_verified, read_manifest, verify
from spotproof.checkpoint.compare import Difference, find_differences, first_difference
from spotproof.checkpoint.manifest import Manifest

if TYPE_CHECKING:
    from spotproof.checkpoint.checkpointer import Checkpointer, Stateful
    from spotproof.checkpoint.resumable import resumable_loader
    from spotproof.checkpoint.rng import RngState

__all__ = [
    "Checkpointer",
    "Difference",
    "Manifest",
    "RngState",
    "Stateful",
    "committed_steps",
    "find_differences",
    "first_difference",
    "newest_verified",
    "read_manifest",
    "resumable_loader",
    "verify",
]

_WITH_TORCH = {
    "Checkpointer": "checkpointer",
    "RngState": "rng",
    "Stateful": "checkpointer",
    "resumable_loader": "resumable",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        from importlib import import_module

        return getattr(import_module(f"spotproof.checkpoint.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
