"""What is known of a job at one moment, and the shell that reads it: no more often than the service likes."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from spotproof.checkpoint.choose import check_listed, committed_steps, read_manifest
from spotproof.checkpoint.manifest import manifest_key
from spotproof.errors import CheckpointError, SpotError
from spotproof.events import EVENT_FILE_REGEX, CheckpointCommitted, Event, Progress, parse_events, parse_progress_line
from spotproof.launch import LogReader, TrainingService
from spotproof.storage import Storage

__all__ = ["JobWatcher", "Look", "StoredCheckpoint", "commit_gaps", "thinned"]

_READINGS: Final = 6
"""S3 is read once in so many looks: listing costs money, and the mirror is some seconds behind anyway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCheckpoint:
    """The newest one whose files are all in S3, in their sizes."""

    step: int
    created_at: datetime
    """When it was committed on the machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A job as it was at one moment."""

    at: datetime
    description: Mapping[str, Any]
    """DescribeTrainingJob's answer."""
    events: tuple[Event, ...] = ()
    """From the event files in S3 and from the log, of all that the checkpoint folder has seen."""
    checkpoint: StoredCheckpoint | None = None
    place_read_at: datetime | None = None
    """When the checkpoint folder was last read; None if it has not answered yet."""
    last_line_at: datetime | None = None
    """Of the log."""
    poll_seconds: float = 10.0
    """Between two looks."""

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.description["TrainingJobName"])

    @property
    def checkpoint_s3_uri(self) -> str | None:
        """Where its checkpoints are mirrored to."""
        uri = (self.description.get("CheckpointConfig") or {}).get("S3Uri")
        return str(uri) if uri else None


class JobWatcher:
    """Looks at one job again and again, and reads only what is new.

    Args:
        service: Where the job is.
        job_name: Its name.
        open_place: Gives the storage of its checkpoint folder.
    """

    def __init__(self, service: TrainingService, job_name: str, open_place: Callable[[str], Storage]) -> None:
        self._service, self._job_name, self._open_place = service, job_name, open_place
        self._logs: LogReader | None = None
        self._progress: list[Progress] = []
        self._last_line_at: datetime | None = None
        self._storage: Storage | None = None
        self._files: dict[str, tuple[int, list[Event]]] = {}
        self._checkpoint: StoredCheckpoint | None = None
        self._place_read_at: datetime | None = None
        self._num_looks = 0

    def look(self, now: datetime, *, is_thorough: bool = False) -> Look:
        """Return what is known *now*.

        Args:
            now: The clock's time.
            is_thorough: Whether S3 is read in any case. It is at the first look, and when the job is over.

        Raises:
            LaunchError: There is no such job, or the service refuses.
            ServiceUnreachable: Nothing answers; that may pass.
        """
        description = self._service.describe(self._job_name)
        self._read_log(description)
        is_over = description["TrainingJobStatus"] in ("Completed", "Failed", "Stopped")
        if is_thorough or is_over or self._num_looks % _READINGS == 0:
            self._read_place((description.get("CheckpointConfig") or {}).get("S3Uri"), now)
        self._num_looks += 1
        events: list[Event] = [event for _, found in self._files.values() for event in found]
        return Look(
            at=now,
            description=description,
            events=tuple(sorted([*events, *self._progress], key=lambda event: event.at)),
            checkpoint=self._checkpoint,
            place_read_at=self._place_read_at,
            last_line_at=self._last_line_at,
            poll_seconds=self._service.poll_seconds,
        )

    def _read_log(self, description: Mapping[str, Any]) -> None:
        if self._logs is None:
            # What was told before the running attempt is in the event files, and may be long.
            starts = [
                entry["StartTime"]
                for entry in description.get("SecondaryStatusTransitions") or []
                if entry["Status"] == "Training"
            ]
            since = starts[-1] - timedelta(seconds=1) if starts else None
            self._logs = self._service.open_logs(self._job_name, since=since)
        new: list[Progress] = []
        for line in self._logs.read_new():
            self._last_line_at = line.at
            progress = parse_progress_line(line.message, line.at)
            if progress is not None:
                new.append(progress)
        self._progress = thinned([*self._progress, *new], self._service.poll_seconds)

    def _read_place(self, uri: str | None, now: datetime) -> None:
        """Read what is new in the checkpoint folder. One that does not answer is no reason to stop watching."""
        if uri is None:
            return
        try:
            if self._storage is None:
                self._storage = self._open_place(uri)
            self._read_event_files(self._storage)
            self._read_checkpoint(self._storage)
            self._place_read_at = now
        except (OSError, SpotError):
            return

    def _read_event_files(self, storage: Storage) -> None:
        for entry in storage.list("events/"):
            if EVENT_FILE_REGEX.fullmatch(entry.key.rpartition("/")[2]) is None:
                continue
            if self._files.get(entry.key, (-1, []))[0] == entry.size_bytes:
                continue
            try:
                text = storage.get(entry.key).decode("utf-8", errors="replace")
            except FileNotFoundError:
                continue  # the mirror replaced it between the listing and the look
            events = list(parse_events(text.splitlines()))
            steps = thinned([event for event in events if isinstance(event, Progress)], self._service.poll_seconds)
            others = [event for event in events if not isinstance(event, Progress)]
            self._files[entry.key] = (entry.size_bytes, [*others, *steps])

    def _read_checkpoint(self, storage: Storage) -> None:
        sizes: dict[str, int] | None = None
        for step in committed_steps(storage):
            if self._checkpoint is not None and step == self._checkpoint.step:
                return
            try:
                manifest = read_manifest(storage, manifest_key(step))
                if sizes is None:
                    sizes = {entry.key: entry.size_bytes for entry in storage.list("packs/")}
                check_listed(manifest, sizes, storage.url)
            except CheckpointError:
                continue  # the mirror is not done with it: the one before it counts until this one is whole
            self._checkpoint = StoredCheckpoint(step=step, created_at=manifest.created_at)
            return


def thinned(progress: list[Progress], seconds: float) -> list[Progress]:
    """Return *progress* without what was told within *seconds* of a line before; each attempt keeps its ends.

    A job of days tells its step a hundred thousand times.
    """
    ordered = sorted(progress, key=lambda event: event.at)
    kept: list[Progress] = []
    last_at = -math.inf
    for index, event in enumerate(ordered):
        is_end = index + 1 == len(ordered) or ordered[index + 1].attempt != event.attempt
        is_start = index == 0 or ordered[index - 1].attempt != event.attempt
        if is_start or is_end or event.at.timestamp() - last_at >= seconds:
            kept.append(event)
            last_at = event.at.timestamp()
    return kept


def commit_gaps(events: Iterable[Event]) -> list[float]:
    """Return the seconds between two commits of one attempt, for all of them."""
    commits = [event for event in events if isinstance(event, CheckpointCommitted)]
    pairs = [(earlier, later) for earlier, later in pairwise(commits) if earlier.attempt == later.attempt]
    return [(later.at - earlier.at).total_seconds() for earlier, later in pairs]
