"""The newest checkpoint's packs are read ahead, and trouble with that is nobody's trouble."""

import os

from spotproof.checkpoint.choose import newest_verified
from spotproof.checkpoint.manifest import (
    Manifest,
    RankFiles,
    StoredFile,
    TensorEntry,
    content_hash,
    format_manifest,
    state_key,
)
from spotproof.checkpoint.pack import PackTensor, format_header, pack_file
from spotproof.container.warm import read_ahead
from spotproof.storage import LocalStorage


def commit(folder, step):
    """Commit one tensor."""
    storage, data, state = LocalStorage(folder), bytes([step]) * 100, b"{}"
    digest = content_hash(data)
    header = format_header([PackTensor("w", "uint8", (100,), 100, digest)])
    pack, rest = pack_file(header, 100), StoredFile(state_key(content_hash(state)), 2)
    storage.put(pack.key, [header, data])
    storage.put(rest.key, [state])
    files = RankFiles(rest, (pack,), (TensorEntry("w", "uint8", (100,), digest, 0),))
    manifest = Manifest(step=step, run_id="r", attempt=0, ranks=(files,))
    storage.put(manifest.key, [format_manifest(manifest)])
    assert newest_verified(storage) == manifest
    return manifest


def test_every_file_of_the_newest_is_asked_for(tmp_path, monkeypatch):
    """And none of an older one."""
    commit(tmp_path, 1)
    newest = commit(tmp_path, 2)
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *_: asked.append(os.readlink(f"/proc/self/fd/{fd}")))

    assert read_ahead(tmp_path) == newest.total_bytes

    assert sorted(asked) == sorted(str(tmp_path / file.key) for file in newest.files)


def test_a_torn_or_missing_checkpoint_is_left_to_the_program(tmp_path):
    """Nothing is raised, for a folder without checkpoints, a torn manifest, a missing pack."""
    assert read_ahead(tmp_path / "none") == 0
    manifest = commit(tmp_path, 1)
    (tmp_path / manifest.ranks[0].packs[0].key).unlink()
    assert read_ahead(tmp_path) == manifest.ranks[0].state.size_bytes
    (tmp_path / manifest.key).write_text("{")
    assert read_ahead(tmp_path) == 0
