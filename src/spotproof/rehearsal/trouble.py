"""What is done to the rehearsed job on purpose: read before anything starts, let in while it runs, told at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from spotproof.errors import LaunchError
from spotproof.local import LocalSageMaker, S3Faults, SyncFaults, parse_s3_faults, parse_sync_faults
from spotproof.rehearsal.chaos import Chaos
from spotproof.report import FaultCount, FaultSummary
from spotproof.schedule import Schedule, parse_schedule

__all__ = ["Trouble"]


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Reclaims and faults; None for what was not said.

    Raises:
        SpecError: One can't be used.
    """

    reclaim: str | None
    sync_faults: str | None
    s3_faults: str | None
    seed: int | None = None
    """Of the chaos that completed it."""
    schedule: Schedule = field(init=False)
    _sync: SyncFaults = field(init=False)
    _s3: S3Faults = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", parse_schedule(self.reclaim_text))
        object.__setattr__(self, "_sync", parse_sync_faults(self.sync_text))
        object.__setattr__(self, "_s3", parse_s3_faults(self.s3_text))

    @property
    def reclaim_text(self) -> str:
        return self.reclaim or "none"

    @property
    def sync_text(self) -> str:
        return self.sync_faults or "none"

    @property
    def s3_text(self) -> str:
        return self.s3_faults or "none"

    def completed(self, chaos: Chaos) -> "Trouble":
        """Return the same with *chaos* in place of what was not said."""
        return replace(
            self,
            reclaim=self.reclaim or chaos.reclaim,
            sync_faults=self.sync_faults or chaos.sync_faults,
            s3_faults=self.s3_faults or chaos.s3_faults,
            seed=chaos.seed,
        )

    @contextmanager
    def let_in(self, platform: LocalSageMaker, job_name: str) -> Iterator[None]:
        """Let it happen to *job_name*, which is to run within.

        Raises:
            LaunchError: The job failed; what was done to it is added to what it says.
        """
        platform.set_reclaims(self.schedule)
        platform.faults.set_sync(self._sync, job_name)
        platform.set_s3_faults(self._s3)
        try:
            yield
        except LaunchError as error:
            faults = self.summary(platform, job_name)
            if faults is None:
                raise
            raise LaunchError(
                error.what,
                why=f"{error.why}What was done to it:\n{faults.story()}\n",
                do=f"{error.do} All of it again: {faults.command()}",
            ) from error
        finally:
            platform.set_s3_faults(parse_s3_faults("none"))

    def summary(self, platform: LocalSageMaker, job_name: str) -> FaultSummary | None:
        """Return what came of it; None if there were to be no faults."""
        if not (self._sync.faults or self._s3.faults):
            return None
        injected = [*platform.faults.injected(job_name), *platform.faults.injected_into_s3()]
        return FaultSummary(
            seed=self.seed,
            reclaim=self.reclaim_text,
            sync_faults=self.sync_text,
            s3_faults=self.s3_text,
            injected=tuple(
                FaultCount(kind=item.kind, attempt=item.attempt, count=item.count, examples=tuple(item.examples))
                for item in injected
            ),
            given=platform.faults.given(job_name),
        )
