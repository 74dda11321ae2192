"""Which faults are in force on one platform, and which have happened: the one place that knows both."""

import logging
import threading
from dataclasses import dataclass, field
from typing import Final

from spotproof.local.s3_faults import S3Faults, S3Weather
from spotproof.local.sync_faults import NO_SYNC_FAULTS, Fate, SyncFaults

__all__ = ["AgentFaults", "FaultDesk", "Injected"]

_MAX_EXAMPLES: Final = 5
_PLATFORM: Final = ""
"""The job under whose name faults of S3 are counted: a request does not say whose it is."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Injected:
    """How often one kind of fault happened in one attempt."""

    kind: str
    attempt: int | None
    """None for faults of S3."""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    """The first few, for people."""


class FaultDesk:
    """Takes plans and hands them out; counts what agents and the S3 proxy report. Safe from any thread."""

    def __init__(self, sync: SyncFaults, s3: S3Faults) -> None:
        self._lock = threading.Lock()
        self._sync, self._of_jobs = sync, dict[str, SyncFaults]()
        self._injected: dict[tuple[str, int | None, str], Injected] = {}
        self._spoiled: dict[str, dict[str, str]] = {}
        self._given: dict[str, dict[int, list[str]]] = {}
        self.weather = S3Weather(lambda kind, what: self._count(_PLATFORM, None, kind, what))
        self.weather.set(s3)

    def set_sync(self, faults: SyncFaults, job: str | None = None) -> None:
        """Let *faults* happen from now on: to one job, or to all that have none of their own."""
        with self._lock:
            if job is None:
                self._sync = faults
            else:
                self._of_jobs[job] = faults

    def sync_of(self, job: str | None = None) -> SyncFaults:
        """Return the plan in force for *job*, or for those that have none of their own."""
        with self._lock:
            return self._sync if job is None else self._of_jobs.get(job, self._sync)

    def forget(self, job: str) -> None:
        """Drop all that is known of a job that is no more: its name is free."""
        with self._lock:
            for known in (self._of_jobs, self._spoiled, self._given):
                known.pop(job, None)
            for key in [key for key in self._injected if key[0] == job]:
                del self._injected[key]

    def agent(self, job: str, attempt: int, host: int) -> "AgentFaults":
        """Return what one sync agent asks."""
        return AgentFaults(self, job, attempt, host)

    def injected(self, job: str) -> list[Injected]:
        """Return what has happened to *job*'s agents so far, by attempt."""
        return self._found(job)

    def injected_into_s3(self) -> list[Injected]:
        """Return what has happened to requests to S3 so far, whosever they were."""
        return self._found(_PLATFORM)

    def given(self, job: str) -> dict[int, list[str]]:
        """Return, by attempt, which spoiled files there were in S3 when it began, and how each was spoiled."""
        with self._lock:
            return {attempt: list(told) for attempt, told in self._given.get(job, {}).items()}

    def _found(self, job: str) -> list[Injected]:
        with self._lock:
            return [
                Injected(found.kind, found.attempt, found.count, list(found.examples))
                for key, found in self._injected.items()
                if key[0] == job
            ]

    def _count(self, job: str, attempt: int | None, kind: str, what: str) -> None:
        with self._lock:
            found = self._injected.setdefault((job, attempt, kind), Injected(kind, attempt))
            found.count += 1
            if len(found.examples) < _MAX_EXAMPLES:
                found.examples.append(what)
        if attempt is None:
            _log.debug("S3 fault %s: %s", kind, what)
        else:
            _log.info("job %s: attempt=%d sync fault %s: %s", job, attempt, kind, what)

    def _mark(self, job: str, name: str, how: str | None) -> None:
        """Remember that what lies in S3 under *name* is spoiled (*how*), or no longer so."""
        with self._lock:
            if how is not None:
                self._spoiled.setdefault(job, {})[name] = how
            elif job in self._spoiled:
                self._spoiled[job].pop(name, None)

    def _give(self, job: str, attempt: int) -> None:
        with self._lock:
            spoiled = self._spoiled.get(job)
            if spoiled:
                self._given.setdefault(job, {})[attempt] = [f"{name}: {how}" for name, how in sorted(spoiled.items())]


class AgentFaults:
    """What happens to one agent. It asks before it acts, and what it is told is counted as having happened."""

    def __init__(self, desk: FaultDesk, job: str, attempt: int, host: int) -> None:
        self._desk, self._job, self.attempt, self._host = desk, job, attempt, host
        self._uploads: dict[str, int] = {}
        self._num_uploads = self._look = 0
        self._was_stalled = False

    @classmethod
    def none(cls) -> "AgentFaults":
        """Return what an agent asks to which nothing happens."""
        return cls(FaultDesk(NO_SYNC_FAULTS, S3Faults(text="none", faults=())), "", 0, 0)

    @property
    def _plan(self) -> SyncFaults:
        return self._desk.sync_of(self._job)

    def order(self, names: list[str], sizes: dict[str, int]) -> list[list[str]]:
        """Return *names*, given oldest first, in the order to use; between the lists one period passes."""
        self._look += 1
        ordered = self._plan.order(names, sizes, attempt=self.attempt, host=self._host, look=self._look)
        if ordered is None:
            return [names] if names else []
        self._count("reorder", f"{ordered[0]} before {len(ordered) - 1} others")
        return [ordered[:1], ordered[1:]]

    def delay_seconds(self, name: str) -> float:
        """Return how long the next upload of *name* waits."""
        number = self._uploads.get(name, 0)
        delay = self._plan.delay_seconds(name, attempt=self.attempt, host=self._host, number=number)
        if delay > 0:
            self._count("late", f"{name}: {delay:g} s")
        return delay

    def upload(self, name: str, size_bytes: int) -> Fate:
        """Return what becomes of the upload that is about to be made."""
        number = self._uploads.get(name, 0)
        return self._plan.fate(name, size_bytes, attempt=self.attempt, host=self._host, number=number)

    def uploaded(self, name: str, size_bytes: int, fate: Fate) -> None:
        """Take note that the upload was made as *fate* says."""
        self._uploads[name] = self._uploads.get(name, 0) + 1
        self._num_uploads += 1
        how = {
            "whole": None,
            "lost": f"lost in attempt {self.attempt}",
            "torn": f"torn in attempt {self.attempt}, {fate.at_byte} of {size_bytes} bytes",
            "corrupt": f"corrupt since attempt {self.attempt}, byte {fate.at_byte} of {size_bytes}",
        }[fate.outcome]
        self._desk._mark(self._job, name, how)
        if how is not None:
            self._count(fate.outcome, f"{name}: {how}")

    def deleted(self, name: str) -> None:
        """Take note that the object is gone."""
        self._desk._mark(self._job, name, None)

    def is_stalled(self, seconds: float) -> bool:
        """Return whether the agent, started *seconds* ago, has stopped for good."""
        is_stalled = self._plan.is_stalled(attempt=self.attempt, num_uploads=self._num_uploads, seconds=seconds)
        if is_stalled and not self._was_stalled:
            self._was_stalled = True
            self._count("stall", f"after {self._num_uploads} uploads, {seconds:.1f} s")
        return is_stalled

    @property
    def is_flushed(self) -> bool:
        """Whether what is left goes up when the job ends, and in the grace before."""
        return self._plan.is_flushed(attempt=self.attempt)

    def not_flushed(self, what: str) -> None:
        """Take note that it was not."""
        self._count("no-flush", what)

    def begin_restore(self) -> None:
        """Take note of what lies spoiled in S3 at this moment: it is what the attempt gets."""
        self._desk._give(self._job, self.attempt)

    def download_breaks(self, number: int) -> bool:
        """Return whether try *number* (from 0) breaks off."""
        does_break = self._plan.download_breaks(attempt=self.attempt, number=number)
        if does_break:
            self._count("download-fail", f"try {number + 1}")
        return does_break

    def is_download_lost(self, name: str) -> bool:
        """Return whether the file is left out."""
        is_lost = self._plan.is_download_lost(name, attempt=self.attempt, host=self._host)
        if is_lost:
            self._count("download-lost", name)
        return is_lost

    def _count(self, kind: str, what: str) -> None:
        self._desk._count(self._job, self.attempt, kind, what)
