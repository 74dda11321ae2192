"""The newest checkpoint's packs are read ahead, and trouble with that is nobody's trouble."""

import os

from checkpoint_maker import checkpoint
from spotproof.checkpoint.choose import newest_verified
from spotproof.container.warm import read_ahead


def test_every_file_of_the_newest_is_asked_for(tmp_path, monkeypatch):
    """And none of an older one."""
    checkpoint(tmp_path, 1, b"old")
    newest = newest_verified(checkpoint(tmp_path, 2, b"new"))
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *_: asked.append(os.readlink(f"/proc/self/fd/{fd}")))

    assert read_ahead(tmp_path) == newest.total_bytes

    assert sorted(asked) == sorted(str(tmp_path / file.key) for file in newest.files)


def test_a_torn_or_missing_checkpoint_is_left_to_the_program(tmp_path):
    """Nothing is raised, for a folder without checkpoints, a torn manifest, a missing pack."""
    assert read_ahead(tmp_path / "none") == 0
    manifest = newest_verified(checkpoint(tmp_path, 1, b"weights"))
    (tmp_path / manifest.ranks[0].packs[0].key).unlink()
    assert read_ahead(tmp_path) == manifest.ranks[0].state.size_bytes
    (tmp_path / manifest.key).write_text("{")
    assert read_ahead(tmp_path) == 0
