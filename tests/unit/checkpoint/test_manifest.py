"""A manifest is read back as it was, or not at all."""

import json

import pytest

from spotproof import CheckpointDamaged, ResumeMismatch
from spotproof.checkpoint.manifest import (
    Manifest,
    RankFiles,
    StoredFile,
    TensorEntry,
    content_hash,
    format_manifest,
    manifest_key,
    parse_manifest,
    state_key,
)

HASH = "0123456789abcdef" * 2
MANIFEST = Manifest(
    step=1200,
    run_id="run",
    attempt=3,
    meta={"epoch": 2},
    ranks=(
        RankFiles(
            StoredFile(state_key(HASH, 0), 10),
            (StoredFile(f"packs/{HASH}.safetensors", 20),),
            (TensorEntry("w", "float32", (2, 3), HASH, 0),),
        ),
    ),
)


def test_round_trip():
    """Every field survives."""
    assert parse_manifest(format_manifest(MANIFEST), manifest_key(1200)) == MANIFEST


def test_any_flipped_bit_is_noticed():
    """In each byte of the file."""
    data = format_manifest(MANIFEST)
    for index in range(len(data)):
        altered = data[:index] + bytes([data[index] ^ 4]) + data[index + 1 :]
        if json_equal(altered, data):
            continue
        with pytest.raises(CheckpointDamaged):
            parse_manifest(altered, manifest_key(1200))


def json_equal(one, other):
    """Whether two texts say the same, as when only white space differs."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_any_cut_is_noticed():
    """At each length."""
    data = format_manifest(MANIFEST)
    for length in range(len(data)):
        with pytest.raises(CheckpointDamaged):
            parse_manifest(data[:length], manifest_key(1200))


def test_a_renamed_manifest_is_noticed():
    """Its name must be that of its step."""
    with pytest.raises(CheckpointDamaged, match="holds the manifest of step 1200"):
        parse_manifest(format_manifest(MANIFEST), manifest_key(1300))


def test_names_from_outside_are_not_followed():
    """A manifest that points out of its folder is refused."""
    foreign = Manifest(
        step=1, run_id="r", attempt=0, ranks=(RankFiles(StoredFile("packs/../../../etc/passwd", 1), (), ()),)
    )
    with pytest.raises(CheckpointDamaged):
        parse_manifest(format_manifest(foreign), manifest_key(1))


def test_another_format_is_no_damage():
    """It is not passed over, and not removed: the remedy is to use the version that wrote it."""
    body = json.loads(format_manifest(MANIFEST))
    body["format"] = 99
    del body["digest"]
    body["digest"] = content_hash(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    with pytest.raises(ResumeMismatch, match="Resume with the version that wrote it"):
        parse_manifest(json.dumps(body).encode(), manifest_key(1200))
