"""What a killed rehearsal left in the temporary directory goes at the next start, and nothing else does."""

import os
import subprocess
import tempfile

from spotproof.cli import rehearse


def test_only_folders_of_dead_rehearsals_are_removed(tmp_path, monkeypatch):
    """A dead owner's folder goes; a living one's, a link and other names stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    orphan = tmp_path / f"spotproof-rehearsal-{dead.pid}-abc"
    kept = [
        tmp_path / f"spotproof-rehearsal-{os.getpid()}-abc",
        tmp_path / "spotproof-rehearsal-old",
        tmp_path / "data",
    ]
    for folder in (orphan, *kept):
        (folder / "s3").mkdir(parents=True)
    link = tmp_path / f"spotproof-rehearsal-{dead.pid}-link"
    link.symlink_to(tmp_path / "data")

    rehearse._remove_orphans()

    assert not orphan.exists()
    assert all((folder / "s3").is_dir() for folder in kept)
    assert link.is_symlink()
