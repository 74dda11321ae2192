"""Scalars out of TensorBoard's event files, wherever they lie: what is shown, and what an interruption superseded.

The files are read by TensorBoard's own reader, which stops at a torn end without complaint.
"""

import re
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from spotproof.contract import EVENT_FILE_WORD, SUPERSEDED_PREFIX
from spotproof.errors import SpecError
from spotproof.report.loss import Point
from spotproof.storage import Storage, checked_key

__all__ = ["copy_event_files", "has_event_files", "read_scalars"]

_MARKERS: Final = re.compile(r"\.sagemaker-(?:uploading|uploaded|ignore)$")


def has_event_files(storage: Storage) -> bool:
    """Return whether there is any event file in *storage*."""
    return any(EVENT_FILE_WORD in _name(entry.key) for entry in storage.list())


def read_scalars(storage: Storage) -> dict[str, list[Point]]:
    """Return all scalars by tag, in the order in which they were logged.

    Raises:
        SpecError: TensorBoard is not installed.
    """
    keys = [entry.key for entry in storage.list() if not _MARKERS.search(entry.key)]
    shown = [key for key in keys if EVENT_FILE_WORD in _name(key)]
    superseded = [key for key in keys if _name(key).startswith(SUPERSEDED_PREFIX)]
    scalars: dict[str, list[Point]] = {}
    with tempfile.TemporaryDirectory(prefix="spotproof-events-") as folder:
        copy = Path(folder, "events.out.tfevents.copy")
        for directory in sorted({key.rpartition("/")[0] for key in shown}):
            found: dict[str, list[Point]] = {}
            for key in sorted(key for key in shown if key.rpartition("/")[0] == directory):
                if _fetch(storage, key, copy):
                    _read_shown(copy, found)
            for tag, points in found.items():
                scalars.setdefault(tag, []).extend(points)
        for key in superseded:
            if _fetch(storage, key, copy):
                for event in _events(copy):
                    for tag, point in _points(event, is_lost=True):
                        scalars.setdefault(tag, []).append(point)
    return {tag: sorted(points, key=lambda point: point.at) for tag, points in scalars.items()}


def copy_event_files(storage: Storage, folder: Path, known: dict[str, int]) -> None:
    """Make *folder* hold the event files of *storage* as they are now.

    Args:
        storage: Where they are.
        folder: The copy; nothing else is in it.
        known: What was copied before, by key its size; kept up to date.
    """
    found = {
        entry.key: entry.size_bytes
        for entry in storage.list()
        if EVENT_FILE_WORD in _name(entry.key) and not _MARKERS.search(entry.key)
    }
    for key, size in found.items():
        path = folder / checked_key(key)
        if known.get(key) == size:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{len(known)}.tmp")
        if _fetch(storage, key, staged):
            staged.replace(path)  # TensorBoard may be reading it
            known[key] = size
    for key in known.keys() - found.keys():
        (folder / checked_key(key)).unlink(missing_ok=True)
        del known[key]


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _fetch(storage: Storage, key: str, copy: Path) -> bool:
    try:
        copy.write_bytes(storage.get(key))
    except FileNotFoundError:
        return False  # replaced between the listing and the look
    return True


def _read_shown(path: Path, found: dict[str, list[Point]]) -> None:
    """Add the scalars of one file; a restart that it tells of supersedes what is there from its step on."""
    for event in _events(path):
        if event.HasField("session_log") and event.session_log.status == event.session_log.START:
            for tag, points in found.items():
                found[tag] = [replace(each, is_lost=True) if each.step >= event.step else each for each in points]
        for tag, point in _points(event, is_lost=False):
            found.setdefault(tag, []).append(point)


def _events(path: Path) -> Any:
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    except ImportError as error:
        raise SpecError(
            "The TensorBoard files can't be read: tensorboard is not installed.", do="Run pip install tensorboard."
        ) from error
    return EventFileLoader(str(path)).Load()


def _points(event: Any, *, is_lost: bool) -> list[tuple[str, Point]]:
    from tensorboard.util import tensor_util

    if not event.HasField("summary"):
        return []
    at = datetime.fromtimestamp(event.wall_time, timezone.utc)
    return [
        (
            value.tag,
            Point(step=event.step, value=float(tensor_util.make_ndarray(value.tensor)), at=at, is_lost=is_lost),
        )
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "scalars"
    ]
