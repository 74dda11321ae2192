"""The verdict over two jobs: checkpoints decide, the model's files where there are none."""

import io
import tarfile
from pathlib import Path

from checkpoint_maker import checkpoint
from spotproof.rehearsal.compare import compare_artifacts, compare_checkpoints
from spotproof.storage import LocalStorage


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_same_last_checkpoints(tmp_path: Path) -> None:
    """The same bytes in the newest checkpoints are a yes that says what was compared."""
    checkpoint(tmp_path / "a", 5, b"older")
    verdict = compare_checkpoints(checkpoint(tmp_path / "a", 9, b"same"), checkpoint(tmp_path / "b", 9, b"same"))

    assert verdict is not None
    assert verdict.is_identical
    assert "step 9, tensors: 1" in verdict.compared


def test_one_other_byte(tmp_path: Path) -> None:
    """One other byte is a no that names the tensor."""
    verdict = compare_checkpoints(checkpoint(tmp_path / "a", 9, b"same"), checkpoint(tmp_path / "b", 9, b"sane"))

    assert verdict is not None
    assert not verdict.is_identical
    assert verdict.where == "model/w"


def test_checkpoint_on_one_side_only(tmp_path: Path) -> None:
    """If one run left no checkpoint there is nothing to call the same."""
    verdict = compare_checkpoints(LocalStorage(tmp_path / "a"), checkpoint(tmp_path / "b", 9, b"x"))

    assert verdict is not None
    assert not verdict.is_identical
    assert verdict.detail == "the interrupted run left none"


def test_no_checkpoints_leave_it_to_the_model(tmp_path: Path) -> None:
    """Without checkpoints there is no verdict from them; the files in model.tar.gz decide, not the archive's bytes."""
    assert compare_checkpoints(LocalStorage(tmp_path / "a"), LocalStorage(tmp_path / "b")) is None
    assert compare_artifacts(archive(a=b"1", b=b"2"), archive(b=b"2", a=b"1")).is_identical


def test_models_that_differ() -> None:
    """Another file, a missing file, a missing archive: each is a no with its place."""
    one = archive(a=b"1")

    assert compare_artifacts(one, archive(a=b"2")).where == "model.tar.gz/a"
    assert "only the undisturbed run" in str(compare_artifacts(one, archive(a=b"1", b=b"2")).detail)
    assert "the interrupted run left none" in str(compare_artifacts(None, one).detail)


def test_nothing_at_all_is_no_yes() -> None:
    """Two runs that left nothing are not called identical."""
    assert not compare_artifacts(None, None).is_identical
