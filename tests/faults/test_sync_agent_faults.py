"""Faults of the sync agent against a real S3 server: what lies there, what the agent believes, what a restart gets."""

import contextlib
import threading
import time

import boto3
import pytest
from local_rig import open_rig, statuses, wait_until

from spotproof.local.fault_desk import FaultDesk
from spotproof.local.s3_faults import parse_s3_faults
from spotproof.local.sync import SyncAgent
from spotproof.local.sync_faults import parse_sync_faults
from spotproof.schedule import parse_schedule
from spotproof.storage import StorageUnavailable

POLL_SECONDS = 0.02
CONTENT = bytes(range(256)) * 40


class Place:
    """A folder, a bucket, and agents between them that something happens to."""

    def __init__(self, server, folder):
        self.folder = folder
        name = f"faulty-{time.time_ns()}"
        self._client = boto3.client(
            "s3", "us-east-1", None, True, None, server.url, server.access_key, server.secret_key
        )
        self._client.create_bucket(Bucket=name)
        self.name, self.storage = name, server.storage(name)
        self.desk = FaultDesk(parse_sync_faults("none"), parse_s3_faults("none"))
        self._agents = []

    def agent(self, faults="none", *, attempt=0, folder=None):
        """Return an agent, not started."""
        self.desk.set_sync(parse_sync_faults(faults))
        told = self.desk.agent("job", attempt, 0)
        agent = SyncAgent(folder or self.folder, self.storage, "ck/", poll_seconds=POLL_SECONDS, faults=told)
        self._agents.append(agent)
        return agent

    def write(self, name, content=CONTENT):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(path.name + ".sagemaker-ignore")
        staged.write_bytes(content)
        staged.rename(path)

    def is_up(self, name):
        return (self.folder / f"{name}.sagemaker-uploaded").exists()

    def wait_up(self, *names):
        wait_until(lambda: all(self.is_up(name) for name in names))

    def objects(self):
        found = {}
        for item in self._client.list_objects_v2(Bucket=self.name).get("Contents", []):
            with contextlib.suppress(self._client.exceptions.NoSuchKey):  # an agent has deleted it since
                found[item["Key"]] = self._client.get_object(Bucket=self.name, Key=item["Key"])["Body"].read()
        return found

    def counts(self):
        return {item.kind: item.count for item in self.desk.injected("job")}

    def close(self):
        for agent in self._agents:
            agent.abandon()
            agent.join(10)
        self._client.close()


@pytest.fixture
def place(s3_server, tmp_path):
    """A folder and a bucket."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    place = Place(s3_server, folder)
    yield place
    place.close()


@pytest.mark.parametrize("kind", ["torn", "corrupt", "lost"])
def test_a_spoiled_upload_is_reported_done(place, kind, tmp_path):
    """It lies there shorter, altered or not at all, and is marked as uploaded; the drain at the end makes it whole."""
    agent = place.agent(f"{kind}:1@files=a*")
    agent.start()
    place.write("a")
    place.write("b")
    place.wait_up("a", "b")

    found = place.objects()
    assert found["ck/b"] == CONTENT
    if kind == "torn":
        assert found["ck/a"] == CONTENT[: len(found["ck/a"])]
        assert len(found["ck/a"]) < len(CONTENT)
    elif kind == "corrupt":
        assert sum(one != other for one, other in zip(found["ck/a"], CONTENT, strict=True)) == 1
    else:
        assert "ck/a" not in found
    assert place.counts() == {kind: 1}

    place.agent("none", folder=tmp_path / "next").restore()
    assert [line.partition(":")[0] for line in place.desk.given("job")[0]] == ["a"]
    place.desk.set_sync(parse_sync_faults(f"{kind}:1"))
    agent.drain()
    assert place.objects() == {"ck/a": CONTENT, "ck/b": CONTENT}


def test_what_is_deleted_or_made_whole_is_no_longer_given(place):
    """A restart is told of the spoiled files that lie in S3 then, not of those that did once."""
    agent = place.agent("torn:1")
    agent.start()
    for name in ("gone", "whole", "torn"):
        place.write(name)
    place.wait_up("gone", "whole", "torn")
    place.desk.set_sync(parse_sync_faults("none"))
    (place.folder / "gone").unlink()
    place.write("whole", CONTENT + b"!")
    wait_until(lambda: place.objects().get("ck/whole") == CONTENT + b"!" and "ck/gone" not in place.objects())
    wait_until(lambda: place.is_up("whole"))

    place.agent(attempt=1).restore()
    assert [line.partition(":")[0] for line in place.desk.given("job")[1]] == ["torn"]


def test_late_uploads_are_overtaken(place):
    """A late file lets the others pass, is not marked before it is there, and comes in the end."""
    agent = place.agent("late:1s@files=a")
    agent.start()
    place.write("a")
    place.write("b")
    place.wait_up("b")
    assert "ck/a" not in place.objects()
    assert not place.is_up("a")
    place.wait_up("a")
    assert place.objects()["ck/a"] == CONTENT
    assert place.counts() == {"late": 1}


def test_the_newest_goes_first(place, monkeypatch):
    """Newest first: what was written last is there before what it names, and a kill may come in between."""
    agent = place.agent("reorder:newest")
    for name in ("pack", "state", "manifest"):
        place.write(name)
        time.sleep(0.01)  # so that their times differ
    order = []
    monkeypatch.setattr(place.storage, "put_file", lambda key, file, **_: order.append(key))
    agent.start()
    place.wait_up("pack", "state", "manifest")

    assert order == ["ck/manifest", "ck/state", "ck/pack"]


def test_a_stalled_agent_says_nothing(place):
    """After its last upload nothing goes up or away any more; the drain at the end still brings all."""
    agent = place.agent("stall:2")
    agent.start()
    place.write("a")
    place.wait_up("a")
    place.write("b")
    place.wait_up("b")
    place.write("c")
    (place.folder / "a").unlink()
    wait_until(lambda: place.counts() == {"stall": 1})
    assert sorted(place.objects()) == ["ck/a", "ck/b"]

    agent.drain()
    assert sorted(place.objects()) == ["ck/b", "ck/c"]


def test_no_flush(place):
    """Asked for, nothing goes up from the notice on, nor at the end, and what was left behind is counted."""
    agent = place.agent("no-flush")
    agent.start()
    place.write("a")
    place.wait_up("a")
    agent.notice()
    place.write("b")
    agent.join(5)  # it has ended; one that goes on would have uploaded by then
    agent.drain()

    assert sorted(place.objects()) == ["ck/a"]
    assert place.counts() == {"no-flush": 2}


def test_a_notice_alone_stops_nothing(place):
    """Without the fault what a job saves in its grace goes up."""
    agent = place.agent()
    agent.start()
    agent.notice()
    place.write("a")
    place.wait_up("a")


def test_a_download_that_breaks_off_is_made_again(place):
    """The checkpoints are whole after some tries, and a file that was half there is replaced."""
    for name in ("a", "b", "c"):
        place.storage.put(f"ck/{name}", [CONTENT])
    agent = place.agent("download-fail:2", attempt=1)
    agent._is_abandoned.wait = lambda seconds: False

    assert agent.restore() == 3
    assert place.counts() == {"download-fail": 2}
    assert all((place.folder / name).read_bytes() == CONTENT for name in ("a", "b", "c"))

    hopeless = place.agent("download-fail:9", attempt=1)
    hopeless._is_abandoned.wait = lambda seconds: False
    with pytest.raises(StorageUnavailable, match="broke off"):
        hopeless.restore()


def test_a_download_may_leave_files_out(place):
    """What was left out is not on the host, and still in S3 afterwards."""
    for name in ("a", "b"):
        place.storage.put(f"ck/{name}", [CONTENT])
    agent = place.agent("download-lost:1@files=a", attempt=1)

    assert agent.restore() == 1
    assert not (place.folder / "a").exists()
    agent.drain()
    assert sorted(place.objects()) == ["ck/a", "ck/b"]


def test_an_abandoned_agent_waits_for_nothing(place):
    """A reclaim ends a download that is about to be made again, and a look that pauses between two uploads."""
    place.storage.put("ck/a", [CONTENT])
    agent = place.agent("download-fail:9", attempt=1)
    thread = threading.Timer(0.1, agent.abandon)
    thread.start()
    with pytest.raises(InterruptedError):
        agent.restore()
    thread.join()


def test_faults_come_and_go_over_http(tmp_path, s3_server, monkeypatch):
    """Plans can be changed while a job runs, for it alone; its end is whole, and what happened is told."""
    script = """
        save("first", "x" * 1000)
        wait_uploaded("first")
        print("FIRST", flush=True)
        while not (CHECKPOINTS / "go").exists() and not os.path.exists(os.environ["GO"]):
            time.sleep(0.01)
        save("second", "x" * 1000)
        wait_uploaded("second")
        report(1)
        time.sleep(0.3)
    """
    go = tmp_path / "go"
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain") as rig:
        name = rig.create("live", script, Environment={"GO": str(go)})
        rig.wait_line(name, "FIRST")
        assert rig.ask("faults", TrainingJobName=name, SyncFaults="torn:1")["SyncFaults"] == "torn:1"
        go.touch()
        rig.wait_line(name, "step=1")
        assert len(rig.read(f"ck/{name}/second")) < 1000
        rig.wait(name)

        assert len(rig.read(f"ck/{name}/second")) == 1000
        answer = rig.ask("faults", TrainingJobName=name)
        assert [(item["Kind"], item["Attempt"], item["Count"]) for item in answer["Injected"]] == [("torn", 0, 1)]
        assert rig.ask("faults")["SyncFaults"] == "none"
        for body, why in (
            ({"TrainingJobName": "nobody", "SyncFaults": "torn:1"}, "not found"),
            ({"SyncFaults": "torn:2"}, "torn:0.2"),
            ({"S3Faults": 3}, "must be a string"),
            ({"TrainingJobName": name, "S3Faults": "error:1"}, "for all jobs"),
            ({"Faults": "torn:1"}, "no field 'Faults'"),
            ([], "JSON object"),
        ):
            assert why in rig.refusal("faults", body)
        assert "403" in rig.refusal("faults", {"SyncFaults": "torn:1"}, Origin="http://evil.example")
        assert "Content-Type" in rig.refusal("faults", {"SyncFaults": "torn:1"}, **{"Content-Type": "text/plain"})


def test_what_a_job_saves_in_its_grace_may_not_be_flushed(tmp_path, s3_server, monkeypatch):
    """With a grace the job saves at SIGTERM; it finds that again, or not if nothing is flushed."""
    script = """
        print("HAVE", sorted(path.name for path in CHECKPOINTS.iterdir()), flush=True)
        if (CHECKPOINTS / "early").exists():
            sys.exit(0)
        def leave(*_):
            save("late", "x")
            deadline = time.monotonic() + 3
            while not (CHECKPOINTS / "late.sagemaker-uploaded").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            os._exit(0)
        signal.signal(signal.SIGTERM, leave)
        save("early", "x")
        wait_uploaded("early")
        report(1)
        time.sleep(600)
    """
    options = {"hosts": "plain", "reclaim": "step:1@grace=60"}
    for faults, expected in (("none", "['early', 'late']"), ("no-flush", "['early']")):
        folder = tmp_path / faults
        with open_rig(folder, s3_server, monkeypatch, sync_faults=faults, **options) as rig:
            name = rig.create("grace", script)
            rig.wait(name)
            assert [line for line in rig.lines(name) if line.startswith("HAVE")] == ["HAVE []", f"HAVE {expected}"]


def test_capacity_stays_away(tmp_path, s3_server, monkeypatch):
    """`@away` of an item, or of a request, holds the next attempt back; MaxWait counts meanwhile."""
    script = """
        report(1)
        time.sleep(600)
    """
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", reclaim="step:1@away=1h") as rig:
        stopping = {"MaxRuntimeInSeconds": 2, "MaxWaitTimeInSeconds": 4}
        description = rig.run("away", script, StoppingCondition=stopping)
        assert description["SecondaryStatus"] == "MaxWaitTimeExceeded"
        assert statuses(description).count("Training") == 1

        rig.platform.set_reclaims(parse_schedule("none"))
        name = rig.create("asked", script)
        rig.wait_line(name, "step=1")
        assert "from 0 to 120" in rig.refusal("reclaim", {"TrainingJobName": name, "GraceSeconds": 121})
        assert "AwaySeconds" in rig.refusal("reclaim", {"TrainingJobName": name, "AwaySeconds": -1})
        rig.ask("reclaim", TrainingJobName=name, AwaySeconds=3600)
        wait_until(lambda: rig.describe(name)["SecondaryStatus"] == "Starting")
        assert "status Starting" in rig.refusal("reclaim", {"TrainingJobName": name})
        rig.sagemaker.stop_training_job(TrainingJobName=name)
        assert statuses(rig.wait(name)).count("Training") == 1


def test_a_job_survives_an_s3_that_fails(tmp_path, s3_server, monkeypatch):
    """Jobs and agents speak to the failing S3, try again, and come through; without faults they speak to the server."""
    script = """
        print("ENDPOINT", os.environ["AWS_ENDPOINT_URL_S3"], flush=True)
        if not (CHECKPOINTS / "file-9").exists():
            for index in range(10):
                save(f"file-{index}", "x" * 1000)
            for index in range(10):
                wait_uploaded(f"file-{index}")
            report(1)
            time.sleep(600)
    """
    shares = [f"{kind}:0.2@seed=1@keys=*/ck/*" for kind in ("error", "throttle", "reset")]
    faults = ",".join([*shares, "latency:5ms", "bandwidth:10MB/s"])
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", reclaim="step:1", s3_faults=faults) as rig:
        assert rig.platform.s3_url != s3_server.url
        assert rig.platform.environment()["AWS_ENDPOINT_URL_S3"] == rig.platform.s3_url
        name = rig.create("weather", script)
        assert rig.wait(name)["TrainingJobStatus"] == "Completed"
        injected = {item["Kind"]: item["Count"] for item in rig.ask("faults")["InjectedIntoS3"]}
        assert set(injected) == {"error", "throttle", "reset", "latency", "bandwidth"}

        rig.ask("faults", S3Faults="none")
        calm = rig.create("calm", "print('ENDPOINT', os.environ['AWS_ENDPOINT_URL_S3'], flush=True)")
        rig.wait(calm)
        endpoints = [line.split()[1] for job in (name, calm) for line in rig.lines(job) if line.startswith("ENDPOINT")]
        assert endpoints[-1] == s3_server.url
        assert set(endpoints[:-1]) == {rig.s3.meta.endpoint_url}
        assert len(rig.keys(f"ck/{name}/")) == 10
