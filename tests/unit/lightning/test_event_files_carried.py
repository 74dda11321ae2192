"""Event files as part of a checkpoint: whole records of the newest bytes; put back over whatever is left of a file."""

import struct
from pathlib import Path

import pytest

from spotproof.lightning._event_files import EventFiles
from spotproof.storage import LocalStorage

NAME = "events.out.tfevents.1000000000.host.1.0"
LATER = "events.out.tfevents.1000000005.host.2.0"
OLDER = "events.out.tfevents.0999999999.host.9.0"


def record(number: int) -> bytes:
    """One TFRecord of 20 bytes: the checksums are not looked at here."""
    return struct.pack("<QI", 4, 0) + number.to_bytes(4, "little") + b"crc!"


def records(first: int, last: int) -> bytes:
    return b"".join(map(record, range(first, last + 1)))


def carried(folder: Path, content: bytes, **options: int) -> dict:
    """Return the state of a run that wrote *content*."""
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_bytes(content)
    files = EventFiles(folder, **options)
    files.read([str(folder / NAME)])
    return files.state_dict()


def restored(tmp_path: Path, state: dict, **found: bytes) -> tuple[dict[str, bytes], int]:
    """Return the files after a restore over those *found*, and how many bytes are lost."""
    place = tmp_path / "place"
    place.mkdir()
    for name, content in found.items():
        (place / name).write_bytes(content)
    lost = EventFiles(place).restore(state, LocalStorage(place))
    return {path.name: path.read_bytes() for path in place.iterdir()}, lost


def test_only_whole_records_are_carried(tmp_path: Path):
    """A half one is taken when its rest has come."""
    path = tmp_path / NAME
    path.write_bytes(records(1, 3) + record(4)[:7])
    files = EventFiles(tmp_path)
    files.read([str(path)])
    assert files.state_dict() == {NAME: {"offset": 0, "content": records(1, 3)}}
    path.write_bytes(records(1, 5))
    files.read([])
    assert files.state_dict() == {NAME: {"offset": 0, "content": records(1, 5)}}


def test_the_oldest_are_left_out_beyond_the_limit(tmp_path: Path):
    """In whole records, and the place where the rest begins is known."""
    state = carried(tmp_path, records(1, 10), carried_bytes=70)
    assert state == {NAME: {"offset": 140, "content": records(8, 10)}}


@pytest.mark.parametrize("limit", [1000, 70])
@pytest.mark.parametrize(
    "more", [b"", records(11, 12), record(11)[:5]], ids=["nothing", "two records", "half a record"]
)
def test_what_came_after_is_put_aside(tmp_path: Path, limit: int, more: bytes):
    """The file is what it was; the dead end lies beside it under a name that no reader of event files takes."""
    state = carried(tmp_path / "run", records(1, 10), carried_bytes=limit)
    files, lost = restored(tmp_path, state, **{NAME: records(1, 10) + more})
    assert lost == 0
    assert files.pop(NAME) == records(1, 10)
    assert list(files.values()) == ([more] if more else [])
    assert all(name.startswith("superseded.1000000000") and "tfevents" not in name for name in files)


@pytest.mark.parametrize(
    "found", [b"", records(1, 4), records(1, 9)[:-3], b"\xff" * 50], ids=["empty", "older", "torn", "bytes"]
)
def test_a_file_that_is_behind_is_filled_up(tmp_path: Path, found: bytes):
    """Whatever is left of it, as long as the checkpoint has it from its beginning."""
    state = carried(tmp_path / "run", records(1, 10))
    files, lost = restored(tmp_path, state, **{NAME: found})
    assert (files[NAME], lost) == (records(1, 10), 0)
    again = EventFiles(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert again.restore(state, LocalStorage(tmp_path / "empty")) == 0
    assert (tmp_path / "empty" / NAME).read_bytes() == records(1, 10)


def test_a_hole_is_counted(tmp_path: Path):
    """A mirror further behind than what is carried: the rest follows on, and the missing bytes are told."""
    state = carried(tmp_path / "run", records(1, 10), carried_bytes=70)
    files, lost = restored(tmp_path, state, **{NAME: records(1, 4) + record(5)[:9]})
    assert files[NAME] == records(1, 4) + records(8, 10)
    assert lost == 60


def test_a_long_file_out_of_sight_is_left_alone(tmp_path: Path):
    """Its end alone would replace the whole outside."""
    state = carried(tmp_path / "run", records(1, 10), carried_bytes=70)
    assert restored(tmp_path, state) == ({}, 0)


def test_files_of_attempts_that_no_checkpoint_knows_are_put_aside(tmp_path: Path):
    """Not those of other runs from before, nor the mirror's marks, nor anything else."""
    state = carried(tmp_path / "run", records(1, 2))
    others = {OLDER: b"other run", f"{LATER}.sagemaker-uploaded": b"", "hparams.yaml": b"{}"}
    files, _ = restored(tmp_path, state, **{NAME: records(1, 2), LATER: records(3, 4)}, **others)
    assert files == {NAME: records(1, 2), "superseded.1000000005.host.2.0.0": records(3, 4), **others}


def test_a_restored_run_goes_on_in_files_of_its_own(tmp_path: Path):
    """The next checkpoint has the old and the new, and the limit counts for both together."""
    state = carried(tmp_path / "run", records(1, 3))
    place = tmp_path / "place"
    place.mkdir()
    (place / LATER).write_bytes(records(4, 5))
    files = EventFiles(place, carried_bytes=80)
    files.read([str(place / LATER)])
    files.restore(state, LocalStorage(place))
    assert (place / LATER).exists()
    files.read([])
    assert files.state_dict() == {
        LATER: {"offset": 0, "content": records(4, 5)},
        NAME: {"offset": 20, "content": records(2, 3)},
    }
