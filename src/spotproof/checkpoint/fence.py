"""Who may write to a place: the attempt that claimed its number last. Loads no torch.

An attempt claims the next number by creating its event file, which only one process can. The first line of that file
says who it is and names the writers of the attempts before it: each of those finds its own name there, at the latest
before it would commit or remove something, and stops. A name and not the number decides, because a mirror may deliver
the event files of long-ended attempts late. Nobody's clock, process id or lock is asked; a process may sleep anywhere.
"""

import os
import secrets
import socket
from collections.abc import Callable

from spotproof.checkpoint.journal import Journal, recorded_attempts
from spotproof.errors import CheckpointConflict, SpecError
from spotproof.events import AttemptStarted, event_file, parse_events
from spotproof.storage import Storage, StorageUnavailable

__all__ = ["Fence", "claim", "read_start", "writer_name"]

_MAX_SUPERSEDED = 16
"""Attempts before this one that are named. One that is older still finds its name in a claim in between."""
_MAX_TRIES = 50
_START_BYTES = 256 * 1024


def writer_name() -> str:
    """Return a name for this process that no other has."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"


def read_start(storage: Storage, attempt: int) -> AttemptStarted | None:
    """Return the first line of *attempt*'s event file; None if it is missing, torn or something else.

    Raises:
        OSError: The storage could not be read.
    """
    try:
        with storage.open(event_file(attempt)) as file:
            head = b""
            while b"\n" not in head and len(head) < _START_BYTES and (piece := file.read(16 * 1024)):
                head += piece
    except FileNotFoundError:
        return None
    found = next(parse_events([head.partition(b"\n")[0].decode(errors="replace")]), None)
    return found if isinstance(found, AttemptStarted) else None


class Fence:
    """Tells one attempt whether a newer one has taken its place."""

    def __init__(self, storage: Storage, attempt: int, writer: str) -> None:
        self._storage = storage
        self._attempt = attempt
        self._writer = writer
        self._harmless: set[int] = set()
        """Higher numbers that do not mean us: of attempts that ended before, delivered late."""

    def refuse_if_superseded(self) -> None:
        """Return if this attempt may write.

        Raises:
            CheckpointConflict: A newer one has taken its place.
            OSError: That can't be told, because the storage could not be read.
        """
        for number in recorded_attempts(self._storage):
            if number <= self._attempt or number in self._harmless:
                continue
            start = read_start(self._storage, number)
            if start is None:
                continue
            if self._writer in start.supersedes:
                raise CheckpointConflict(
                    f"Attempt {number} writes to {self._storage.url} too, so attempt {self._attempt} stops.",
                    why=f"It was begun by {start.writer} at {start.at:%Y-%m-%d %H:%M:%S} UTC, after this one "
                    f"({self._writer}), and two processes that train the same run would overwrite each other's "
                    "checkpoints.",
                    do="Give each run a folder of its own, or end the process that is not wanted.",
                )
            self._harmless.add(number)


def claim(
    storage: Storage, lowest: int, build_start: Callable[[int, list[str]], AttemptStarted]
) -> tuple[Journal, Fence]:
    """Claim the next attempt number of *storage* and supersede the attempts before it.

    Args:
        storage: The place.
        lowest: The number, unless event files tell of higher ones.
        build_start: Returns the first line for a number and the writers that it supersedes.

    Raises:
        CheckpointConflict: Others were quicker, again and again.
        SpecError: An object store does not let us write.
        OSError: The storage could not be read.
    """
    for _ in range(_MAX_TRIES):
        found = recorded_attempts(storage)
        attempt = max(lowest, *(number + 1 for number in found), 0)
        starts = (read_start(storage, number) for number in found[-_MAX_SUPERSEDED:])
        start = build_start(attempt, [start.writer for start in starts if start is not None and start.writer])
        journal = Journal(storage, start)
        try:
            journal.open()
        except FileExistsError:
            lowest = attempt + 1  # somebody began at the same moment, and is superseded by the next number
            continue
        except FileNotFoundError:
            continue  # a sweep of somebody's who began at the same moment took it for a leftover
        except StorageUnavailable as err:
            raise SpecError(
                f"{storage.url} can be read, but not written to: {err}",
                do="Allow this run to put and delete objects there.",
            ) from err
        except OSError:
            pass  # a full disk, say: training goes on, and what writes tries again before each save
        return journal, Fence(storage, attempt, start.writer)
    raise CheckpointConflict(
        f"No attempt number could be claimed in {storage.url}: other processes were quicker {_MAX_TRIES} times.",
        do="End the processes that begin there again and again.",
    )
