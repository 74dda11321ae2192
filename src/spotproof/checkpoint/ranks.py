"""The processes that train together: found by themselves where ``torch.distributed`` is initialised."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from spotproof.checkpoint.channel import Channel
from spotproof.errors import SpecError

__all__ = ["Ranks", "find_ranks", "guess_rank"]

_LOOP_PATIENCE = timedelta(minutes=30)
"""How far one rank's training may be ahead of another's: what torch's own collectives allow."""
_WRITER_PATIENCE = timedelta(days=7)
"""A storage may hang on one host while training goes on; that is told, and waited out."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """How this process talks to the others that train with it."""

    loop: Channel
    """For the thread that trains."""
    writer: Channel
    """For the thread that writes: a save must not mix its messages with those of the steps meanwhile."""

    @property
    def rank(self) -> int:
        """Which of them this process is, from 0."""
        return self.loop.rank

    @property
    def world_size(self) -> int:
        """How many there are, at least 2."""
        return self.loop.world_size

    @property
    def is_lead(self) -> bool:
        """Whether this is rank 0, which decides and commits."""
        return self.loop.is_lead


def find_ranks() -> Ranks | None:
    """Return the ranks of this training, or None if this process trains alone. Collective, in the main thread.

    Raises:
        SpecError: torch was built without gloo.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    if not dist.is_gloo_available():
        raise SpecError(
            "This torch has no gloo, by which the processes of a training agree on their checkpoints.",
            do="Use a build of torch with gloo; NCCL may stay the backend of the training itself.",
        )
    # Groups of their own, and never NCCL: that must not be used by two threads, and needs the GPU.
    return Ranks(loop=Channel(timeout=_LOOP_PATIENCE), writer=Channel(timeout=_WRITER_PATIENCE))


def guess_rank(env: Mapping[str, str]) -> int:
    """Return the rank that launchers say this process will have; a wrong guess costs one more reading of a state."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        value = env.get(name, "")
        if value.isdecimal() and (name != "LOCAL_RANK" or value != "0"):
            return int(value)
    node = env.get("NODE_RANK", "")  # one process a host
    return int(node) if node.isdecimal() else 0
