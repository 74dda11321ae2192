"""Spotproof: train on machines that can be taken away, and end with exactly the same model.

Importing this package loads neither torch nor boto3. The parts live in their rooms:
:mod:`spotproof.lightning` (the callback and the CLI), :mod:`spotproof.huggingface` (the Trainer), :mod:`spotproof.loop`
(for loops of one's own), :mod:`spotproof.checkpoint` (the core),
:mod:`spotproof.launch`, :mod:`spotproof.local`, :mod:`spotproof.report`.
"""

from spotproof._version import __version__
from spotproof.errors import (
    CheckpointConflict,
    CheckpointDamaged,
    CheckpointError,
    CheckpointNotFound,
    CheckpointUnreadable,
    EngineError,
    LaunchError,
    NotIdentical,
    ResumeMismatch,
    SpecError,
    SpotError,
    UnsafeState,
)

__all__ = [
    "CheckpointConflict",
    "CheckpointDamaged",
    "CheckpointError",
    "CheckpointNotFound",
    "CheckpointUnreadable",
    "EngineError",
    "LaunchError",
    "NotIdentical",
    "ResumeMismatch",
    "SpecError",
    "SpotError",
    "UnsafeState",
    "__version__",
]
