"""From the options that every adapter has to what saves a training, and what ends it after a notice."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.interval import SaveSchedule
from spotproof.checkpoint.tuning import checked_budget
from spotproof.loop.departure import Departure
from spotproof.loop.notice import NoticeSource
from spotproof.loop.place import default_dirpath

__all__ = ["Opened", "open_training"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The parts of one training; nothing is touched yet."""

    dirpath: str
    schedule: SaveSchedule
    checkpointer: Checkpointer
    departure: Departure


def open_training(
    dirpath: str | os.PathLike[str] | None,
    *,
    every_n_steps: int | None,
    every_n_seconds: float | Literal["auto"] | None,
    overhead_budget: float,
    keep: int,
    notices: Sequence[NoticeSource] | None,
    grace_seconds: float | None,
    requeue: bool,
) -> Opened:
    """Return the parts for these options; see :class:`~spotproof.loop.SpotLoop` for what they mean.

    Raises:
        SpecError: A value is out of range, or no trigger is set.
    """
    place = os.fspath(dirpath) if dirpath is not None else default_dirpath(os.environ)
    schedule = SaveSchedule(every_n_steps=every_n_steps, every_n_seconds=every_n_seconds)
    config = {
        "dirpath": place,
        "every_n_steps": every_n_steps,
        "every_n_seconds": every_n_seconds,
        "overhead_budget": checked_budget(overhead_budget),
    }
    checkpointer = Checkpointer(place, keep=keep, config=config)
    departure = Departure(checkpointer, notices=notices, grace_seconds=grace_seconds, requeue=requeue)
    return Opened(dirpath=place, schedule=schedule, checkpointer=checkpointer, departure=departure)
