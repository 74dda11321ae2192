"""What is to be uploaded: files by name and content."""

import os
from pathlib import Path

import pytest

from spotproof.errors import SpecError
from spotproof.launch import read_files


def test_files_of_a_folder(tmp_path: Path) -> None:
    """All files, hidden ones too, by their names below the folder; what was read is told."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(b"aaa")
    (tmp_path / ".hidden").write_bytes(b"b")
    read: list[int] = []

    files = read_files(tmp_path, on_bytes=read.append)

    assert [(file.name, file.size_bytes) for file in files.files] == [(".hidden", 1), ("sub/a.bin", 3)]
    assert sum(read) == files.size_bytes == 4
    assert [file.name for file in read_files(tmp_path / "sub" / "a.bin").files] == ["a.bin"]


def test_digest_is_that_of_names_and_contents(tmp_path: Path) -> None:
    """Other content or another name is other data; another time or place is not."""
    path = tmp_path / "data" / "a"
    path.parent.mkdir()
    path.write_text("1")
    before = read_files(path.parent).digest

    os.utime(path, (1, 1))
    assert read_files(path.parent).digest == before
    path.write_text("2")
    changed = read_files(path.parent).digest
    path.write_text("1")
    renamed = read_files(path.rename(tmp_path / "data" / "b").parent).digest

    assert len({before, changed, renamed}) == 3


def test_a_change_is_noticed(tmp_path: Path) -> None:
    """By size or time, as a file that something writes to has both others."""
    path = tmp_path / "a"
    path.write_text("1")
    file = read_files(path).files[0]
    assert file.is_unchanged()

    path.write_text("22")
    assert not file.is_unchanged()
    path.unlink()
    assert not file.is_unchanged()


def test_what_can_not_be_uploaded(tmp_path: Path) -> None:
    """An empty folder, a link to nowhere, and a name that is no text are refused in words."""
    with pytest.raises(SpecError, match="no file"):
        read_files(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SpecError, match="can't be read"):
        read_files(tmp_path)
    (tmp_path / "link").unlink()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("x")
    with pytest.raises(SpecError, match="no text"):
        read_files(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Opened, it would give nothing until somebody writes to it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SpecError, match="a pipe, a socket or a device"):
        read_files(tmp_path)


def test_links(tmp_path: Path) -> None:
    """A link to a file is its content; one to a folder is left out, by name, as it may lead back to where it is."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    (tmp_path / "to-file").symlink_to("sub/a")
    (tmp_path / "sub" / "ring").symlink_to("..")

    found = read_files(tmp_path)

    assert [(file.name, file.size_bytes) for file in found.files] == [("sub/a", 1), ("to-file", 1)]
    assert found.linked_folders == ("sub/ring",)
