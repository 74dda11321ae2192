"""The jobs on disk: what is kept, and what is said of a file that can't be used."""

import os
import sqlite3
from contextlib import closing

import pytest

from spotproof.errors import EngineError
from spotproof.local import LocalSageMaker
from spotproof.local.reclaims import Reclaims
from spotproof.local.store import JobStore
from spotproof.schedule import parse_schedule

PLAN, PROGRESS, SUMMARY, DESCRIPTION = {"a": 1}, {"b": "\ud800"}, {"TrainingJobName": "job"}, {"d": 4}


@pytest.fixture
def path(tmp_path):
    """Where the store is."""
    return tmp_path / "jobs.sqlite"


def test_a_job_is_kept_until_it_is_deleted(path):
    """Live: plan and progress. Ended: the description only. Deleted: nothing, and the name is free."""
    with closing(JobStore(path)) as store:
        store.insert("job", PLAN, PROGRESS, SUMMARY, {})
        with pytest.raises(sqlite3.IntegrityError):
            store.insert("job", PLAN, PROGRESS, SUMMARY, {})
        store.save("job", {"b": 2}, SUMMARY)
    with closing(JobStore(path)) as store:
        summaries, (job,) = store.load()
        assert (summaries, job.name, job.plan, job.progress) == ([SUMMARY], "job", PLAN, {"b": 2})
        assert store.description("job") is None
        store.finish("job", SUMMARY, DESCRIPTION)
        store.save("job", PROGRESS, SUMMARY)  # of a thread that is late
    with closing(JobStore(path)) as store:
        assert store.load() == ([SUMMARY], [])
        assert store.description("job") == DESCRIPTION
        store.delete("job")
        assert store.load() == ([], [])
        store.insert("job", PLAN, PROGRESS, SUMMARY, {})


def test_tags_outlive_the_job_and_the_server(path):
    """They are there from the first moment, may change after the end, and go with the job."""
    with closing(JobStore(path)) as store:
        store.insert("job", PLAN, PROGRESS, SUMMARY, {"a": "b"})
        assert store.tags("job") == {"a": "b"}
        store.finish("job", SUMMARY, DESCRIPTION)
        store.save_tags("job", {"a": "c", "d": ""})
    with closing(JobStore(path)) as store:
        assert store.tags("job") == {"a": "c", "d": ""}
        store.delete("job")
        assert store.tags("job") == {}


def test_a_file_of_the_first_format_is_taken_over(path):
    """Its jobs are there, without tags, which they can get."""
    with closing(JobStore(path)) as store:
        store.insert("job", PLAN, PROGRESS, SUMMARY, {"a": "b"})
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE jobs DROP COLUMN tags")
        other.execute("PRAGMA user_version=1")
        other.commit()
    for tags in ({}, {"x": "y"}):  # the second time it is of today's format
        with closing(JobStore(path)) as store:
            assert store.load()[0] == [SUMMARY]
            assert store.tags("job") == tags
            store.save_tags("job", {"x": "y"})


def test_others_cannot_read_it(path):
    """A request may hold secrets: the file and its logs are the owner's only."""
    with closing(JobStore(path)) as store:
        store.insert("job", PLAN, PROGRESS, SUMMARY, {})
        assert {file.stat().st_mode & 0o077 for file in path.parent.glob("jobs.sqlite*")} == {0}


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    """The reason of the system, and what to do."""
    (tmp_path / "jobs.sqlite").mkdir()
    with pytest.raises(EngineError, match=r"can't be used: .* choose another state directory"):
        JobStore(tmp_path / "jobs.sqlite")


def test_lists_keep_the_order_of_creation(path):
    """Also after a delete."""
    with closing(JobStore(path)) as store:
        for name in ("c", "a", "b"):
            store.insert(name, PLAN, PROGRESS, {"TrainingJobName": name}, {})
        store.delete("a")
        store.insert("a", PLAN, PROGRESS, {"TrainingJobName": "a"}, {})
        assert [item["TrainingJobName"] for item in store.load()[0]] == ["c", "b", "a"]


def test_a_long_log_is_copied_into_the_file(path):
    """The write-ahead log does not grow for ever, and the copying keeps nobody waiting."""
    log = path.with_name("jobs.sqlite-wal")
    with closing(JobStore(path)) as store:
        store.insert("job", {"a": "x" * 100_000}, PROGRESS, SUMMARY, {})
        for _ in range(5):
            for _ in range(60):
                store.save_plan("job", {"a": "y" * 100_000})
            store.shrink_log()
        assert log.stat().st_size < 20 * 1024 * 1024, "30 MB were written"


def open_error(path):
    with pytest.raises(EngineError) as caught, closing(JobStore(path)) as store:
        store.load()
    return str(caught.value)


def test_a_newer_file_is_refused(path):
    """It names both formats and the remedy, and changes nothing."""
    JobStore(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version=7")
    before = path.read_bytes()
    message = open_error(path)
    assert "newer Spotproof" in message
    assert "format 7" in message
    assert "Update" in message
    assert path.read_bytes() == before


def test_another_programs_file_is_refused(path):
    """A SQLite file that is not ours is left alone."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE jobs (x)")
        other.commit()
    before = path.read_bytes()
    assert "another program" in open_error(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "cut", "page", "document"])
def test_a_damaged_file_is_told(path, damage):
    """No file of jobs: it says so, what to do, and what is not lost."""
    with closing(JobStore(path)) as store:
        for number in range(50):
            store.insert(f"job-{number}", {"a": "x" * 2000}, PROGRESS, SUMMARY, {})
    if damage == "document":
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE jobs SET progress = '{' WHERE name = 'job-7'")
            other.commit()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if damage == "text":
        path.write_text("hello, this is no database at all" * 100)
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "page":
        with path.open("r+b") as file:
            file.seek(4096 * 5)
            file.write(os.urandom(4096 * 3))
    message = open_error(path)
    assert "damaged" in message
    assert "Move it away" in message


def test_a_server_says_what_is_wrong_with_its_jobs(tmp_path, s3_server, monkeypatch):
    """The platform does not start over a damaged file, and leaves nothing behind that keeps the next from starting."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    state = tmp_path / "state"
    state.mkdir()
    (state / "jobs.sqlite").write_text("hello" * 1000)
    platform = LocalSageMaker(state, hosts="plain", s3_endpoint=s3_server.url)
    with pytest.raises(EngineError, match="damaged"):
        platform.__enter__()
    (state / "jobs.sqlite").unlink()
    with platform:
        pass


@pytest.mark.parametrize(
    "text", ["step:2,step:2,at:5s,every:90s", "poisson:500/h@seed=3,poisson:900/h", "at:1s,poisson:2/s"]
)
def test_a_replay_goes_on_where_it_was(text):
    """Stored and loaded after any number of reclaims, the rest of a schedule is the same."""

    def make():
        return Reclaims(parse_schedule(text), num_hosts=1, is_spot=True, created_at=0.0, capacity_wait_seconds=0.5)

    def play(reclaims, begin, end, *, is_reloaded):
        found = []
        for attempt in range(begin, end):
            start = 10.0 * attempt
            reclaims.begin_training(start)
            for tenth in range(95):
                reclaims.take_step(tenth // 10)
                reclaim = reclaims.due(attempt, start + tenth / 10)
                if reclaim is not None:
                    found.append((attempt, tenth, reclaim.cause))
                    break
            reclaims.end_training(start + 9.5)
            if is_reloaded:
                document, reclaims = reclaims.to_document(), make()
                reclaims.load(document)
        return found

    undisturbed = play(make(), 0, 60, is_reloaded=False)
    assert undisturbed
    assert play(make(), 0, 60, is_reloaded=True) == undisturbed
