"""The one exception family. Every error raised on purpose says what happened, why, and what to do.

SpotError                      exit 1     root
├─ SpecError       (ValueError)  exit 2   the request is wrong; nothing was started
├─ LaunchError                   exit 3   the platform refused, or the job ended Failed
├─ CheckpointError               exit 4   a checkpoint could not be written or read
│  ├─ CheckpointNotFound (FileNotFoundError)   there is none at that place
│  ├─ CheckpointDamaged                        it does not verify
│  │  └─ CheckpointUnreadable                  the storage did not give it; it may be whole
│  ├─ CheckpointConflict                       a newer attempt writes to the same place
│  └─ UnsafeState (TypeError)                  a state holds something that could not be read back safely
├─ ResumeMismatch                exit 5   the checkpoint is from another model, data or world size
├─ EngineError                   exit 6   the local platform could not start or kill something
└─ NotIdentical                  exit 7   a rehearsal ended with another model than the undisturbed run
"""

from typing import ClassVar

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
]


class SpotError(Exception):
    """Base of every error raised on purpose: what happened, why, what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        super().__init__(" ".join(part for part in (what, why, do) if part))
        self.what, self.why, self.do = what, why, do


class SpecError(SpotError, ValueError):
    """The request is wrong; nothing was started."""

    exit_code = 2


class LaunchError(SpotError):
    """The platform refused the job, or the job ended Failed."""

    exit_code = 3


class CheckpointError(SpotError):
    """A checkpoint could not be written or read."""

    exit_code = 4


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """There is no checkpoint at that place."""


class CheckpointDamaged(CheckpointError):
    """A checkpoint does not verify: a file is missing, cut short or altered."""


class CheckpointUnreadable(CheckpointDamaged):
    """The storage did not give a checkpoint's file (an I/O error, no permission, no answer); it may be whole."""


class CheckpointConflict(CheckpointError):
    """Another, newer attempt writes to the same place."""


class UnsafeState(CheckpointError, TypeError):
    """A state holds an object that could not be read back without running code from the checkpoint."""


class ResumeMismatch(SpotError):
    """The checkpoint belongs to another model, data set or world size."""

    exit_code = 5


class EngineError(SpotError):
    """The local platform could not start, reach or kill something."""

    exit_code = 6


class NotIdentical(SpotError):
    """A rehearsal ended with another model than the undisturbed run."""

    exit_code = 7
