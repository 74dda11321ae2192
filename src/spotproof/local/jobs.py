"""All jobs of one platform: made, found, kept, found again after the server's end, and forgotten.

A live job is an object here and rows in the store; one that has ended is in the store only, but for the summary that
lists show.
"""

import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from spotproof.contract import TERMINAL_STATUSES
from spotproof.errors import EngineError, SpecError
from spotproof.local.capacity import Capacity
from spotproof.local.clock import Clock
from spotproof.local.describe import summarize
from spotproof.local.images import image_document, read_image_document
from spotproof.local.job import Job, JobRoom
from spotproof.local.removal import remove_tree
from spotproof.local.request import JobPlan, parse_request
from spotproof.local.staging import Surroundings
from spotproof.local.store import JobStore, SavedJob
from spotproof.local.wire import WireError
from spotproof.schedule import Schedule, parse_schedule

__all__ = ["Jobs"]

_PULSE_FILE: Final = "pulse"
_BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
_RETIRE_PATIENCE_SECONDS: Final = 60.0
"""For the removal of what an ended job left on its hosts."""
_log = logging.getLogger(__name__)


class Jobs:
    """The jobs of a state directory, from :meth:`open` to :meth:`close`. All methods may be called from any thread."""

    def __init__(
        self,
        state_dir: Path,
        around: Surroundings,
        schedule: Schedule,
        *,
        num_hosts: int,
        capacity_wait_seconds: float,
        spot_price_factor: float,
    ) -> None:
        self._pulse = state_dir / _PULSE_FILE
        self._store = JobStore(state_dir / "jobs.sqlite")
        self._schedule, self._spot_price_factor = schedule, spot_price_factor
        self.capacity = Capacity(num_hosts)
        self._clock = Clock(self._ring, self._beat, lambda: bool(self._live))
        self._around = around
        self._room = JobRoom(
            around=around,
            logs_dir=state_dir / "logs",
            capacity=self.capacity,
            capacity_wait_seconds=capacity_wait_seconds,
            set_alarm=self._clock.set,
            hurry=self._clock.hurry,
            save=self._save,
            retire=self._retire,
        )
        self._live: dict[str, Job] = {}
        self._retired = threading.Condition()
        self._summaries: dict[str, dict[str, Any]] = {}
        self._unsaved: set[str] = set()
        self._creating = threading.Lock()
        self._tagging = threading.Lock()
        self._taken: set[str] = set()
        """Names of jobs that are being created."""
        self._is_open = False

    def open(self) -> None:
        """Find the jobs of the server before this one again, and begin. No process of it may be left.

        Raises:
            EngineError: They can't be read.
        """
        summaries, saved_jobs = self._store.load()
        self._summaries = {item["TrainingJobName"]: item for item in summaries}
        lost_at, has_same_boot = self._read_pulse()
        self._live = {saved.name: self._load(saved) for saved in saved_jobs}
        self._remove_directories()
        # Who waits longest is asked first; who lost its machines stands behind them.
        actions = {job: job.recover(lost_at, has_files=has_same_boot) for job in list(self._live.values())}
        self._pulse.write_text(_boot_id())
        self._is_open = True
        self._clock.start()
        for job in sorted(actions, key=lambda job: job.waiting_since):
            job.begin(actions[job])

    def close(self) -> None:
        """Let all jobs go as a kill would: they are found again by the next server on this state directory."""
        self._clock.close()
        if self._is_open:
            for job in list(self._live.values()):
                job.close()
            self._beat()
            self._remove_directories()
        self._store.close()

    def create(self, plan: JobPlan, tags: Mapping[str, str]) -> bool:
        """Accept a job; return whether its name was free. It is on the disk when this returns."""
        with self._creating:
            if plan.name in self._summaries or plan.name in self._taken:
                return False
            self._taken.add(plan.name)
            schedule = self._schedule
        try:
            # Not under the lock: clients that create jobs at once wait for the disk together.
            job, actions = Job.create(plan, self._room, schedule)
            summary = summarize(job.describe())
            self._store.insert(plan.name, self._plan_document(job), job.to_document(), summary, tags)
            self._live[plan.name] = job
            self._summaries[plan.name] = summary
        finally:
            self._taken.discard(plan.name)
        job.begin(actions)
        return True

    def has(self, name: str) -> bool:
        """Return whether there is a job, alive or ended."""
        return name in self._summaries

    def live(self, name: str) -> Job | None:
        """Return a job that has not ended; None if it has, or there is none."""
        job = self._live.get(name)
        return None if job is None or job.is_terminal else job

    def describe(self, name: str) -> dict[str, Any] | None:
        """Return a job as DescribeTrainingJob does; None if there is none."""
        job = self._live.get(name)
        return job.describe() if job is not None else self._store.description(name)

    def summaries(self) -> Sequence[Mapping[str, Any]]:
        """Return all jobs as ListTrainingJobs does, oldest first."""
        return list(self._summaries.values())

    def update(self, name: str, changes: Mapping[str, Any]) -> None:
        """Replace members of a live job's request."""
        job = self._live.get(name)
        if job is not None:
            job.update(changes)
            self._store.save_plan(name, self._plan_document(job))

    def tags(self, name: str) -> dict[str, str]:
        """Return a job's tags, alive or ended."""
        return self._store.tags(name)

    def change_tags(self, name: str, change: Callable[[dict[str, str]], dict[str, str]]) -> dict[str, str]:
        """Replace a job's tags by what *change* makes of them; return those. What it raises changes nothing."""
        with self._tagging:
            tags = change(self._store.tags(name))
            self._store.save_tags(name, tags)
        return tags

    def set_schedule(self, schedule: Schedule) -> None:
        """Let jobs that are created from now on be reclaimed as *schedule* says."""
        with self._creating:
            self._schedule = schedule

    def delete(self, name: str) -> bool:
        """Forget a job that has ended, so that its name is free; its logs and objects stay. Return whether it had."""
        summary = self._summaries.get(name)
        if summary is not None and summary["TrainingJobStatus"] not in TERMINAL_STATUSES:
            return False
        with self._retired:
            if not self._retired.wait_for(lambda: name not in self._live, _RETIRE_PATIENCE_SECONDS):
                return False
        with self._creating:
            self._store.delete(name)
            self._summaries.pop(name, None)
            self._around.faults.forget(name)
        return True

    def _plan_document(self, job: Job) -> dict[str, Any]:
        plan = job.plan
        return {
            "request": plan.request,
            "region": plan.arn.split(":")[3],
            "image": image_document(plan.image),
            "spot_price_factor": plan.rules.spot_price_factor,
            "schedule": job.reclaims.schedule.text,
        }

    def _load(self, saved: SavedJob) -> Job:
        try:
            plan = _parse_plan(saved.plan)
            schedule = self._find_schedule(saved)
            return Job.load(plan, self._room, schedule, saved.progress)
        except (WireError, SpecError, KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"Job {saved.name} can't be read back:",
                why=f"{type(error).__name__}: {error}.",
                do="Use the version of Spotproof that accepted it, or choose another state directory.",
            ) from error

    def _find_schedule(self, saved: SavedJob) -> Schedule:
        """A job keeps the schedule that it was accepted under."""
        text = saved.plan["schedule"]
        if text == self._schedule.text:
            return self._schedule
        try:
            return parse_schedule(text)
        except SpecError as error:
            _log.warning("job %s goes on without reclaims, because its schedule can't be read: %s", saved.name, error)
            return Schedule(text="none", items=())

    def _read_pulse(self) -> tuple[float, bool]:
        """Return when the server before this one last lived, and whether the machine has run since."""
        now = time.time()
        try:
            return min(self._pulse.stat().st_mtime, now), self._pulse.read_text() == _boot_id() != ""
        except FileNotFoundError:
            return now, False

    def _beat(self) -> None:
        """Show that we live, save again what could not be saved, and keep the store's log short."""
        try:
            os.utime(self._pulse)
        except FileNotFoundError:
            self._pulse.write_text(_boot_id())
        for name in list(self._unsaved):
            job = self._live.get(name)
            if job is not None:
                self._save(job)
                if job.is_terminal:
                    self._retire(job)
        self._store.shrink_log()

    def _remove_directories(self) -> None:
        """Remove what hosts have left, but for what is still to be uploaded."""
        folder = self._around.jobs_dir
        for path in folder.iterdir() if folder.is_dir() else ():
            job = self._live.get(path.name)
            if job is None or not job.has_kept_files:
                remove_tree(path)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _ring(self, name: str) -> None:
        job = self._live.get(name)
        if job is not None:
            job.on_time()

    def _save(self, job: Job) -> None:
        """Keep a job at a transition; what fails is tried again at the next one, or at the next beat."""
        name = job.plan.name
        description = job.describe()
        summary = self._summaries[name] = summarize(description)
        try:
            if job.is_terminal:
                self._store.finish(name, summary, description)
            else:
                self._store.save(name, job.to_document(), summary)
        except sqlite3.Error as error:
            if name not in self._unsaved:
                _log.error("job %s could not be saved, and would be lost with the server now: %s", name, error)
            self._unsaved.add(name)
        else:
            self._unsaved.discard(name)

    def _retire(self, job: Job) -> None:
        """Keep a job that has ended in the store only."""
        if job.plan.name not in self._unsaved:
            with self._retired:
                self._live.pop(job.plan.name, None)
                self._retired.notify_all()


def _parse_plan(saved: Mapping[str, Any]) -> JobPlan:
    image = read_image_document(saved["image"])
    return parse_request(
        saved["request"],
        lambda _: image,
        region=saved["region"],
        spot_price_factor=saved["spot_price_factor"],
    )


def _boot_id() -> str:
    """Return what tells this run of the machine from others; empty if nothing does, so that no file is trusted."""
    if sys.platform != "linux":
        return ""
    return _BOOT_ID_FILE.read_text().strip()
