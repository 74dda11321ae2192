"""The sync agent against a real S3 server: what goes up, what comes back, what must not."""

import contextlib
import json
import os
import threading
import time
from functools import partial
from pathlib import Path

import boto3
import pytest
from local_rig import PATIENCE_SECONDS, open_rig, wait_until

from spotproof.local.attempt import Surroundings
from spotproof.local.downloads import fetch_objects, list_objects
from spotproof.local.sync import SyncAgent
from spotproof.storage import Entry

POLL_SECONDS = 0.02


class Bucket:
    """A bucket of its own, and a way around the storage."""

    def __init__(self, server):
        self.name = f"sync-{time.time_ns()}"
        self._client = boto3.client(
            "s3", "us-east-1", None, True, None, server.url, server.access_key, server.secret_key
        )
        self._client.create_bucket(Bucket=self.name)
        self.storage = server.storage(self.name)

    def objects(self):
        found = {}
        for item in self._client.list_objects_v2(Bucket=self.name).get("Contents", []):
            with contextlib.suppress(self._client.exceptions.NoSuchKey):  # deleted since it was listed
                found[item["Key"]] = self._client.get_object(Bucket=self.name, Key=item["Key"])["Body"].read()
        return found

    def put(self, key, content=b"x"):
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def close(self):
        self._client.close()


@pytest.fixture
def bucket(s3_server):
    """An empty bucket."""
    bucket = Bucket(s3_server)
    yield bucket
    bucket.close()


@pytest.fixture
def folder(tmp_path):
    """An empty checkpoint directory."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


@pytest.fixture
def agent(bucket, folder):
    """A running agent."""
    agent = SyncAgent(folder, bucket.storage, "ck/job/", poll_seconds=POLL_SECONDS)
    agent.restore()
    agent.start()
    yield agent
    agent.abandon()
    agent.join(10)


def is_up(path):
    return path.with_name(path.name + ".sagemaker-uploaded").exists()


def test_new_changed_and_deleted_files_follow(agent, bucket, folder):
    """Files go up whole, with markers beside them; a change goes up again; a deletion deletes, markers too."""
    path = folder / "deep" / "file"
    path.parent.mkdir()
    path.write_bytes(b"one")
    (folder / "other").write_bytes(b"other")
    wait_until(lambda: is_up(path) and is_up(folder / "other"))
    assert (folder / "deep/file.sagemaker-uploading").exists()
    assert bucket.objects() == {"ck/job/deep/file": b"one", "ck/job/other": b"other"}

    path.write_bytes(b"two, longer")
    wait_until(lambda: bucket.objects()["ck/job/deep/file"] == b"two, longer")
    wait_until(lambda: is_up(path))

    path.unlink()
    wait_until(lambda: "ck/job/deep/file" not in bucket.objects())
    wait_until(lambda: list(path.parent.iterdir()) == [])
    assert bucket.objects() == {"ck/job/other": b"other"}


def test_what_must_not_go_up_stays(agent, bucket, folder, tmp_path):
    """Ignored names, markers, links, pipes and directories are not uploaded, and links are not followed."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (folder / "a.sagemaker-ignore").write_text("staged")
    (folder / "b.sagemaker-uploaded").write_text("")
    (folder / "link").symlink_to(secret / "key")
    (folder / "linked").symlink_to(secret)
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "back\\slash").write_text("a name that can leave a folder elsewhere")
    (folder / "last").write_text("last")
    wait_until(lambda: is_up(folder / "last"))
    agent.drain()

    assert bucket.objects() == {"ck/job/last": b"last"}
    assert sorted(p.name for p in secret.iterdir()) == ["key"], "a marker was put through a link"


def test_a_planted_marker_link_is_not_followed(bucket, folder, tmp_path):
    """A job that plants a link where a marker goes can't make the agent write elsewhere."""
    victim = tmp_path / "victim"
    (folder / "file.sagemaker-uploading").symlink_to(victim)
    (folder / "file.sagemaker-uploaded").symlink_to(victim)
    (folder / "file").write_text("x")
    agent = SyncAgent(folder, bucket.storage, "ck/")
    agent.drain()

    assert bucket.objects() == {"ck/file": b"x"}
    assert not victim.exists()


def test_restore_brings_back_what_is_below_the_prefix(bucket, folder):
    """Every object below the prefix is restored, and not uploaded again; the markers were never in S3."""
    bucket.put("ck/job/a/b", b"content")
    bucket.put("ck/job/empty", b"")
    bucket.put("ck/job/", b"")
    bucket.put("ck/job/a/", b"")
    bucket.put("ck/other", b"no")
    agent = SyncAgent(folder, bucket.storage, "ck/job/")

    assert agent.restore() == 2
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {
        "a/b": b"content",
        "empty": b"",
    }
    bucket.put("ck/job/a/b", b"changed in S3 meanwhile")
    agent.drain()
    assert bucket.objects()["ck/job/a/b"] == b"changed in S3 meanwhile", "an unchanged file was uploaded again"


def test_a_restored_file_that_is_deleted_is_deleted_in_s3(bucket, folder):
    """Deletions propagate for restored files as well."""
    bucket.put("ck/old", b"x")
    agent = SyncAgent(folder, bucket.storage, "ck/")
    agent.restore()
    (folder / "old").unlink()
    agent.drain()

    assert bucket.objects() == {}


def test_a_prefix_without_a_slash_is_one_of_characters(bucket, folder):
    """`ck/run-1` also restores `ck/run-10/…`, as SageMaker does; uploads go below `ck/run-1/`."""
    bucket.put("ck/run-1/a", b"mine")
    bucket.put("ck/run-10/a", b"a neighbour's")
    agent = SyncAgent(folder, bucket.storage, "ck/run-1")
    agent.restore()
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["0/a", "a"]

    (folder / "new").write_text("n")
    agent.drain()
    assert bucket.objects()["ck/run-1/new"] == b"n"


class HostileStorage:
    """A storage whose listing holds keys that would leave the folder."""

    url = "s3://hostile"

    def __init__(self, keys):
        self._keys = keys

    def list(self, prefix=""):
        return [Entry(key, 1) for key in self._keys if key.startswith(prefix)]

    def stream(self, key):
        yield b"x"


@pytest.mark.parametrize("key", ["ck/../../out", "ck/a/../../out", "ck/..", "ck/nul\0", "ck/back\\slash", "ck//../out"])
def test_keys_do_not_leave_the_folder(folder, tmp_path, key):
    """A key that would climb out is skipped; the others are restored."""
    storage = HostileStorage([key, "ck/good"])
    names = fetch_objects(storage, list_objects(storage, "ck/"), folder)

    assert names == ["good"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["checkpoints", "good"]


def test_keys_in_each_others_way_are_skipped(folder):
    """An object `a` beside `a/b` can't both be files and directories here: one is skipped, nothing fails."""
    storage = HostileStorage(["ck/a", "ck/a/b", "ck/c"])
    names = fetch_objects(storage, list_objects(storage, "ck/"), folder)

    assert "c" in names
    assert len(names) == 2


def test_nothing_is_uploaded_once_abandoned(bucket, folder):
    """After a reclaim no new file goes up, and an upload under way leaves no object."""
    started, gone_on = threading.Event(), threading.Event()

    class SlowStorage:
        """Holds the first upload until it is told to go on."""

        def put_file(self, key, file, *, is_abandoned):
            started.set()
            assert gone_on.wait(PATIENCE_SECONDS)
            bucket.storage.put_file(key, file, is_abandoned=is_abandoned)

    (folder / "first").write_bytes(b"x" * 1000)
    (folder / "second").write_bytes(b"x")
    agent = SyncAgent(folder, SlowStorage(), "ck/", poll_seconds=POLL_SECONDS)
    agent.start()
    assert started.wait(PATIENCE_SECONDS)
    agent.abandon()
    gone_on.set()
    agent.join(PATIENCE_SECONDS)

    assert bucket.objects() == {}
    assert not list(folder.glob("*.sagemaker-uploaded"))


def test_a_failing_s3_is_tried_again(bucket, folder, caplog):
    """An upload that fails is repeated at the next look, with one warning; a drain gives up with the error."""

    class FailingStorage:
        """Fails a number of times."""

        fails = 3

        def put_file(self, key, file, *, is_abandoned):
            if self.fails:
                type(self).fails -= 1
                raise OSError("S3 is down")
            bucket.storage.put_file(key, file, is_abandoned=is_abandoned)

    (folder / "file").write_bytes(b"x")
    agent = SyncAgent(folder, FailingStorage(), "ck/", poll_seconds=POLL_SECONDS)
    agent.start()
    wait_until(lambda: is_up(folder / "file"))
    assert len([record for record in caplog.records if "S3 is down" in record.getMessage()]) == 1

    FailingStorage.fails = 100
    (folder / "another").write_bytes(b"x")
    with pytest.raises(OSError, match="S3 is down"):
        agent.drain()
    assert bucket.objects() == {"ck/file": b"x"}


def test_the_last_files_are_drained_at_the_end(tmp_path, s3_server, monkeypatch):
    """A job that writes as its last act and leaves finds all of it in S3, also with an agent that never looked."""
    monkeypatch.setattr("spotproof.local.platform.Surroundings", partial(Surroundings, sync_seconds=3600))
    script = """
        for index in range(20):
            save(f"file-{index:02}", str(index))
    """
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain") as rig:
        name = rig.create("drained", script)
        rig.wait(name)
        assert rig.keys(f"ck/{name}/") == [f"ck/{name}/file-{index:02}" for index in range(20)]


def test_a_reclaim_flushes_nothing(tmp_path, s3_server, monkeypatch):
    """Files that the agent had not uploaded are lost with the machine."""
    script = """
        print("HAVE", json.dumps(sorted(os.listdir(CHECKPOINTS))), flush=True)
        if (CHECKPOINTS / "up").exists():
            sys.exit(0)
        save("up", "x")
        wait_uploaded("up")
        staged = CHECKPOINTS / "big.sagemaker-ignore"
        staged.write_bytes(b"x" * 200_000_000)
        staged.rename(CHECKPOINTS / "big")
        report(1)
        time.sleep(600)
    """
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", reclaim="step:1", capacity_wait_seconds=0) as rig:
        name = rig.create("lost", script)
        rig.wait(name)
        assert rig.keys(f"ck/{name}/") == [f"ck/{name}/up"]
        assert [line for line in rig.lines(name) if line.startswith("HAVE")] == ["HAVE []", 'HAVE ["up"]']
        assert json.loads(Path(rig.platform.state_dir, "server.json").read_text())["url"] == rig.platform.url


def test_several_hosts_share_one_prefix(bucket, tmp_path):
    """Every host uploads to the same place: the last writer of a name wins, and no agent deletes another's files."""
    folders = [tmp_path / "algo-1", tmp_path / "algo-2"]
    agents = []
    for folder in folders:
        folder.mkdir()
        agents.append(SyncAgent(folder, bucket.storage, "ck/"))
        agents[-1].restore()
    for index, (folder, agent) in enumerate(zip(folders, agents, strict=True)):
        (folder / "same").write_text(f"by {index}")
        (folder / f"own-{index}").write_text("x")
        agent.drain()
    agents[0].drain()

    assert bucket.objects() == {"ck/same": b"by 1", "ck/own-0": b"x", "ck/own-1": b"x"}
