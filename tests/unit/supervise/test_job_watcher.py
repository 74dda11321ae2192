"""What a look at a job calls its newest checkpoint: one that a resume could use, by what is in its folder."""

from datetime import datetime, timedelta, timezone

import pytest

from spotproof.checkpoint.manifest import Manifest, RankFiles, StoredFile, content_hash, format_manifest, state_key
from spotproof.storage import LocalStorage, open_storage
from spotproof.supervise import JobWatcher

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Job:
    """A service that knows one job, whose log is empty."""

    poll_seconds = 10.0

    def __init__(self, place):
        self.place = place

    def describe(self, name):
        return {
            "TrainingJobName": name,
            "TrainingJobStatus": "InProgress",
            "CheckpointConfig": {"S3Uri": str(self.place)},
        }

    def open_logs(self, name, *, since):
        return self

    def read_new(self):
        return []


def upload(storage, step, *, files=("manifest", "state")):
    """Put *files* of the checkpoint of *step* into the folder, as a mirror does: in any order, one by one."""
    content = f"state of {step}".encode()
    state = StoredFile(state_key(content_hash(content), 0), len(content))
    manifest = Manifest(
        step=step,
        run_id="r",
        attempt=0,
        ranks=(RankFiles(state=state, packs=(), tensors=()),),
        created_at=NOW + timedelta(seconds=step),
    )
    if "manifest" in files:
        storage.put(manifest.key, [format_manifest(manifest)])
    if "state" in files:
        storage.put(state.key, [content])
    if "torn state" in files:
        storage.put(state.key, [content[:-1]])


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path)


@pytest.fixture
def newest(tmp_path):
    """Return a function that looks once more, and gives the step of the newest checkpoint."""
    watcher = JobWatcher(Job(tmp_path), "j", open_storage)  # type: ignore[arg-type]

    def look():
        found = watcher.look(NOW, is_thorough=True).checkpoint
        return None if found is None else found.step

    return look


@pytest.mark.parametrize("half", ["manifest", ("manifest", "torn state"), "state"], ids=str)
def test_a_checkpoint_that_is_half_there_is_none_yet(storage, newest, half):
    """A manifest that has overtaken its packs, or whose pack was cut short, is nothing that a job could go on from."""
    upload(storage, 10)
    assert newest() == 10
    upload(storage, 20, files=half)
    assert newest() == 10
    upload(storage, 20)
    assert newest() == 20


def test_the_first_one_that_is_half_there(storage, newest):
    """Then there is none at all, and one that comes later whole is it."""
    assert newest() is None
    upload(storage, 10, files="manifest")
    assert newest() is None
    upload(storage, 20)
    assert newest() == 20


def test_a_newer_one_is_found_behind_one_that_is_not_whole(storage, newest):
    """Of three, the middle one counts while the newest is on its way."""
    upload(storage, 10)
    upload(storage, 20)
    upload(storage, 30, files="manifest")
    assert newest() == 20
