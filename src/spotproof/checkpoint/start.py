"""How an attempt begins to write: it claims its number, alone or as rank 0 for all, and makes its writer."""

import errno
import logging
import os
import platform
import uuid
from dataclasses import dataclass
from typing import Any

import torch

from spotproof._version import __version__
from spotproof.checkpoint.commit import SoleCommitter
from spotproof.checkpoint.fence import claim, read_start, writer_name
from spotproof.checkpoint.finding import Finder
from spotproof.checkpoint.journal import Journal, RelayedJournal
from spotproof.checkpoint.manifest import Manifest
from spotproof.checkpoint.ranks import Ranks
from spotproof.checkpoint.ranks_commit import RanksCommitter
from spotproof.checkpoint.unchanging import Unchanging
from spotproof.checkpoint.writer import Writer
from spotproof.contract import ENV_JOB_NAME
from spotproof.errors import SpecError
from spotproof.events import AttemptStarted, Warned
from spotproof.storage import LocalStorage, Storage

__all__ = ["Start", "refuse_if_read_only"]

log = logging.getLogger(__name__)

_NEVER_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def refuse_if_read_only(storage: Storage) -> None:
    """Tell at once what is a mistake: a disk may be full for a while, but this place will never take a file.

    Raises:
        SpecError: Nothing can ever be written to it.
    """
    if not isinstance(storage, LocalStorage):
        return
    try:
        storage.check_writable()
    except OSError as err:
        if err.errno in _NEVER_WRITABLE:
            raise SpecError(
                f"No checkpoint can be written to {storage.url}.",
                why=f"{err}.",
                do="Name another folder, or make this one writable.",
            ) from err
        log.debug("%s can't be written to yet: %s", storage.url, err)  # the first save says it


def _job() -> dict[str, Any]:
    """Return which job this is, where a platform says so: whoever finds the checkpoints can tell whose they are."""
    name = os.environ.get(ENV_JOB_NAME)
    return {"job": name} if name else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What an attempt begins with."""

    storage: Storage
    unchanging: Unchanging
    config: dict[str, Any]
    keep: int
    resumed_from: Manifest | None
    finder: Finder

    def alone(self) -> tuple[Journal, Writer]:
        """Claim the next attempt number and return what tells and what writes.

        Raises:
            SpecError: The place can't be written to.
            CheckpointConflict: Others were quicker, again and again.
        """
        refuse_if_read_only(self.storage)
        journal, committer, _ = self._claimed({})
        return journal, self._writer(committer, journal)

    def together(self, ranks: Ranks) -> tuple[Journal | RelayedJournal, Writer]:
        """Do what :meth:`alone` does, with rank 0's number for all. Collective; errors as there, on every rank."""
        ranks.loop.together(lambda: refuse_if_read_only(self.storage))
        own: list[tuple[Journal, SoleCommitter]] = []

        def claimed() -> dict[str, Any]:
            journal, committer, start = self._claimed({"world_size": ranks.world_size})
            own.append((journal, committer))
            return {"attempt": journal.attempt, "writer": start.writer}

        told = ranks.loop.lead(claimed)
        results: list[tuple[Journal | RelayedJournal, Writer]] = []
        # Ends only when every rank has swept what an attempt before has left, so that none sweeps what another writes.
        ranks.loop.together(lambda: results.append(self._joined(ranks, told, own)))
        return results[0]

    def _claimed(self, more_config: dict[str, Any]) -> tuple[Journal, SoleCommitter, AttemptStarted]:
        newest = self.resumed_from
        run_id = newest.run_id if newest else uuid.uuid4().hex
        starts: list[AttemptStarted] = []

        def build_start(attempt: int, supersedes: list[str]) -> AttemptStarted:
            starts.append(
                AttemptStarted(
                    attempt=attempt,
                    run_id=run_id,
                    config={**self.config, **more_config, **_job()},
                    versions={
                        "python": platform.python_version(),
                        "torch": torch.__version__,
                        "spotproof": __version__,
                    },
                    writer=writer_name(),
                    supersedes=supersedes,
                )
            )
            return starts[-1]

        journal, fence = claim(self.storage, newest.attempt + 1 if newest else 0, build_start)
        committer = SoleCommitter(
            self.storage,
            journal,
            fence,
            self.unchanging,
            run_id=run_id,
            keep=self.keep,
            resumed_from=newest,
            rejected=frozenset(self.finder.rejected),
            was_empty=self.finder.was_empty,
        )
        return journal, committer, starts[-1]

    def _joined(
        self, ranks: Ranks, told: dict[str, Any], own: list[tuple[Journal, SoleCommitter]]
    ) -> tuple[Journal | RelayedJournal, Writer]:
        journal: Journal | RelayedJournal
        if own:
            journal, lead = own[0]
            shares_folder = True
        else:
            journal, lead = RelayedJournal(told["attempt"], ranks.rank), None
            # Rank 0's claim is seen here only if this is its very folder: a mirror brings nothing while a job runs.
            start = read_start(self.storage, told["attempt"])
            shares_folder = start is not None and start.writer == told["writer"]
            if not shares_folder and isinstance(self.storage, LocalStorage) and ENV_JOB_NAME not in os.environ:
                message = (
                    f"{self.storage.url} is another folder here than on rank 0. A resume needs the files of all ranks "
                    "on every host: let the platform merge the folders, as SageMaker does, or use one that all share."
                )
                log.warning(message)
                journal.write(Warned(attempt=journal.attempt, message=message))
        committer = RanksCommitter(
            ranks.writer,
            self.storage,
            journal,
            self.unchanging,
            resumed_from=self.resumed_from,
            lead=lead,
            shares_folder=shares_folder,
        )
        return journal, self._writer(committer, journal, speaks=ranks.is_lead)

    def _writer(
        self, committer: SoleCommitter | RanksCommitter, journal: Journal | RelayedJournal, *, speaks: bool = True
    ) -> Writer:
        return Writer(
            committer,
            journal,
            self.unchanging,
            url=self.storage.url,
            last_committed_step=self.resumed_from.step if self.resumed_from else None,
            speaks=speaks,
        )
