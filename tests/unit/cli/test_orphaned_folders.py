"""What a killed command left in the temporary directory goes at the next start, and nothing else does."""

import os
import subprocess
import tempfile

import pytest

from spotproof.cli.own_folder import own_folder


@pytest.mark.parametrize("prefix", ["spotproof-rehearsal-", "spotproof-curves-"])
def test_only_folders_of_dead_commands_are_removed(tmp_path, monkeypatch, prefix):
    """A dead owner's folder goes; a living one's, a link and other names stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    orphan = tmp_path / f"{prefix}{dead.pid}-abc"
    kept = [
        tmp_path / f"{prefix}{os.getpid()}-abc",
        tmp_path / f"{prefix}old",
        tmp_path / "data",
        tmp_path / f"spotproof-other-{dead.pid}-abc",
    ]
    for folder in (orphan, *kept):
        (folder / "s3").mkdir(parents=True)
    link = tmp_path / f"{prefix}{dead.pid}-link"
    link.symlink_to(tmp_path / "data")

    with own_folder(prefix) as own:
        assert own.is_dir()
        assert own.name.startswith(f"{prefix}{os.getpid()}-")
        assert not orphan.exists()
    assert not own.exists()
    assert all((folder / "s3").is_dir() for folder in kept)
    assert link.is_symlink()
