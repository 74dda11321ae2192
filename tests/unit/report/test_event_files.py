"""Scalars are read as TensorBoard reads them; what was superseded is kept apart; the copy follows the place."""

from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from spotproof.report import copy_event_files, has_event_files, read_scalars
from spotproof.storage import LocalStorage


def write(folder: Path, points: list[tuple[int, float]], *, restart: int | None = None) -> Path:
    """Write an event file with its own writer; return it."""
    before = set(folder.glob("*"))
    writer = EventFileWriter(str(folder))
    if restart is not None:
        writer.add_event(Event(step=restart, session_log=SessionLog(status=SessionLog.START)))
    for step, value in points:
        summary = Summary(value=[Summary.Value(tag="loss", simple_value=value)])
        writer.add_event(Event(step=step, wall_time=1000.0 + step, summary=summary))
    writer.close()
    (path,) = set(folder.glob("*")) - before
    return path


def steps(folder: Path, *, lost: bool) -> list[int]:
    return [point.step for point in read_scalars(LocalStorage(folder))["loss"] if point.is_lost == lost]


def test_a_restart_supersedes(tmp_path: Path):
    """Points at and after its step, in the files before it alone; marks of the mirror are no event files."""
    first = write(tmp_path, [(0, 1.0), (1, 0.9), (2, 0.8)])
    first.with_name(first.name + ".sagemaker-uploaded").write_text("")
    write(tmp_path, [(1, 0.7), (2, 0.6)], restart=1)
    assert steps(tmp_path, lost=False) == [0, 1, 2]
    assert steps(tmp_path, lost=True) == [1, 2]
    kept = [point.value for point in read_scalars(LocalStorage(tmp_path))["loss"] if not point.is_lost]
    assert kept == pytest.approx([1.0, 0.7, 0.6])


def test_what_was_put_aside_is_lost(tmp_path: Path):
    """And a torn end is no error."""
    aside = write(tmp_path, [(5, 1.0), (6, 1.0)])
    aside.rename(tmp_path / "superseded.1.host.2.0")
    assert not has_event_files(LocalStorage(tmp_path))
    torn = write(tmp_path, [(0, 1.0), (1, 1.0)])
    torn.write_bytes(torn.read_bytes()[:-3])
    assert has_event_files(LocalStorage(tmp_path))
    assert steps(tmp_path, lost=False) == [0]
    assert steps(tmp_path, lost=True) == [5, 6]


def test_the_copy_follows(tmp_path: Path):
    """What grows is copied again, what is gone goes, and nothing else comes along."""
    place, copy, known = tmp_path / "place", tmp_path / "copy", {}
    (place / "run").mkdir(parents=True)
    copy.mkdir()
    file = write(place / "run", [(0, 1.0)])
    (place / "run" / "hparams.yaml").write_text("{}")
    (place / "superseded.1").write_text("")

    copy_event_files(LocalStorage(place), copy, known)
    assert [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()] == [f"run/{file.name}"]
    with file.open("ab") as opened:
        opened.write(b"more")
    copy_event_files(LocalStorage(place), copy, known)
    assert (copy / "run" / file.name).read_bytes() == file.read_bytes()
    file.unlink()
    copy_event_files(LocalStorage(place), copy, known)
    assert not [path for path in copy.rglob("*") if path.is_file()]
