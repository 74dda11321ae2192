"""Jobs outlive the server: killed with SIGKILL, or ended with Ctrl-C, in whatever state its jobs are."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing, contextmanager

import boto3
import pytest
from botocore.config import Config
from local_rig import PATIENCE_SECONDS, PREAMBLE, ROLE, processes_with, statuses

from spotproof.errors import EngineError
from spotproof.local import LocalSageMaker
from spotproof.local.forkserver import ForkServer
from spotproof.local.registry import owner_id

# A server as `spotproof serve` runs it. A file HOLD/<verb>-<job> keeps that job in front of that verb of its attempt,
# so that a test finds it in the state it wants.
SERVER = """
import json, signal, sys, time
from pathlib import Path
from spotproof.local import Image, LocalSageMaker
from spotproof.local.attempt import Attempt
options = json.loads(sys.argv[1])
hold, images = Path(options.pop("hold")), options.pop("images")

def held(verb):
    real = getattr(Attempt, verb)
    def call(self, *args, **kwargs):
        # Ctrl-C lets go of it only when no job can get the freed hosts any more.
        ends = self._is_killed.is_set if verb == "prepare" else lambda: ended and platform._jobs._clock._is_closed
        while (hold / f"{verb}-{self._plan.name}").exists() and not ends():
            time.sleep(0.01)
        return real(self, *args, **kwargs)
    setattr(Attempt, verb, call)

ended = []
held("prepare"); held("upload"); held("wait_gone")
signal.signal(signal.SIGINT, lambda *_: ended.append(1))
images = {uri: Image(Path(folder), ["python", "script.py"]) for uri, folder in images.items()}
with LocalSageMaker(images=images, **options) as platform:
    print("READY", flush=True)
    while not ended:
        time.sleep(0.02)
"""
# Tells the ledger of each start, and of a start while another attempt still lives.
LEDGER = """
import fcntl
ledger = pathlib.Path(os.environ["LEDGER"])
lock = open(ledger.with_suffix(".lock"), "w")
def tell(word):
    with ledger.open("a") as file:
        file.write(word + "\\n")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    tell("TWICE")
tell("start")
"""


class Server:
    """A server that can be killed and started again on its state directory, with the jobs' ledgers beside it."""

    def __init__(self, folder, s3_server, **options):
        self.state = folder / "state"
        self.hold = folder / "hold"
        self.images = {}
        self._folder, self._s3, self._options = folder, s3_server, options
        self._process = None
        self.bucket = f"restart-{time.time_ns()}"
        for made in (self.hold, folder / "ledger", folder / "images"):
            made.mkdir()
        keys = s3_server.access_key, s3_server.secret_key
        self.s3 = boto3.client("s3", "us-east-1", None, True, None, s3_server.url, *keys)
        self.s3.create_bucket(Bucket=self.bucket)
        self._clients = [self.s3]

    def image(self, name, script):
        """Have an image before the server starts."""
        folder = self._folder / "images" / name
        folder.mkdir()
        (folder / "script.py").write_text(PREAMBLE + LEDGER + textwrap.dedent(script))
        self.images[name] = str(folder)

    def start(self):
        options = {
            "state_dir": str(self.state),
            "s3_endpoint": self._s3.url,
            "hosts": "plain",
            "hold": str(self.hold),
            "images": self.images,
            **self._options,
        }
        environment = {**os.environ, **self._s3.environment()}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(options)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout.readline() == "READY\n"
        url = json.loads((self.state / "server.json").read_text())["url"]
        self.client = boto3.client(
            "sagemaker", "us-east-1", None, True, None, url, "key", "secret", config=Config(retries={"max_attempts": 1})
        )
        self._clients.append(self.client)

    def kill(self, number=signal.SIGKILL):
        self._process.send_signal(number)
        self._process.wait()
        self._process.stdout.close()
        self._process = None

    def close(self):
        if self._process is not None:
            self.kill()
        for client in self._clients:
            client.close()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while processes_with(f"={owner_id(self.state)}/"):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def create(self, name, image, *, spot=True, hosts=1, **changes):
        stopping = {"MaxRuntimeInSeconds": 900, **({"MaxWaitTimeInSeconds": 1000} if spot else {})}
        self.client.create_training_job(
            TrainingJobName=name,
            RoleArn=ROLE,
            **{
                "AlgorithmSpecification": {
                    "TrainingImage": image,
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "loss", "Regex": r"loss=(\S+)"}],
                },
                "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out/"},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1},
                "StoppingCondition": stopping,
                "EnableManagedSpotTraining": spot,
                "CheckpointConfig": {"S3Uri": f"s3://{self.bucket}/ck/{name}/"},
                "Environment": {"LEDGER": str(self._folder / "ledger" / name)},
                **changes,
            },
        )
        return name

    def describe(self, name):
        answer = self.client.describe_training_job(TrainingJobName=name)
        del answer["ResponseMetadata"]
        return answer

    def wait(self, name, *wanted):
        """Return the description once its secondary status is one of those."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (description := self.describe(name))["SecondaryStatus"] not in wanted:
            assert time.monotonic() < deadline, description
            time.sleep(0.02)
        return description

    def wait_line(self, name, text):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(text in path.read_text() for path in (self.state / "logs" / name).glob("*.log")):
            assert time.monotonic() < deadline, self.describe(name)
            time.sleep(0.01)

    def starts(self, name):
        """Return what the job's attempts told the ledger."""
        path = self._folder / "ledger" / name
        return path.read_text().split() if path.exists() else []

    def wait_told(self, name, word, num=1):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.starts(name).count(word) < num:
            assert time.monotonic() < deadline, self.describe(name)
            time.sleep(0.01)

    def wait_exit_saved(self, name):
        """Return once the server knows that the job's program has ended, which no answer tells before Uploading."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with closing(sqlite3.connect(self.state / "jobs.sqlite")) as store:
                ((progress,),) = store.execute("SELECT progress FROM jobs WHERE name = ?", (name,))
            if json.loads(progress)["state"]["ending"] is not None:
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_clean(self):
        """Return once no host's directory is left."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left := list((self.state / "jobs").glob("*")):
            assert time.monotonic() < deadline, left
            time.sleep(0.02)

    def keys(self, prefix):
        answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return {item["Key"].removeprefix(prefix) for item in answer.get("Contents", [])}


@contextmanager
def open_server(folder, s3_server, **options):
    server = Server(folder, s3_server, **options)
    try:
        yield server
    finally:
        server.close()


# Counts to a number, a checkpoint each step, and goes on from the newest in S3 after an interruption.
COUNT = """
state = CHECKPOINTS / "state"
step = int(state.read_text()) if state.exists() else 0
tell(f"from:{step}")
while step < int(os.environ.get("STEPS", "1000000")):
    step += 1
    save("state", str(step))
    wait_uploaded("state")
    print(f"loss={step}", flush=True)
    print("COUNTED", step, flush=True)
(BASE / "model/result").write_text(str(step))
"""
QUICK = '(BASE / "model/result").write_text("made")'
LEAVING = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(BASE / "model/result").write_text("half")
print("loss=0.5", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_jobs_in_every_state_are_found_again(tmp_path, s3_server, number):
    """Killed or stopped in order: each job is what it was, or begins again from S3; none is lost, none runs twice."""
    with open_server(tmp_path, s3_server, capacity=6) as server:
        for name, script in {"count": COUNT, "quick": QUICK, "leaving": LEAVING, "fail": "sys.exit(3)"}.items():
            server.image(name, script)
        server.start()
        for name in ("completed", "failed"):
            server.create(name, "quick" if name == "completed" else "fail")
            server.wait(name, "Completed", "Failed")
        server.create("spot", "count")
        server.create("demand", "count", spot=False)
        server.create("stopping", "leaving")
        for verb, name in (("upload", "uploading"), ("prepare", "downloading"), ("wait_gone", "exited")):
            (server.hold / f"{verb}-{name}").touch()
            server.create(name, "quick")
        server.wait("uploading", "Uploading")
        server.wait("downloading", "Downloading")
        server.wait_exit_saved("exited")
        server.wait_line("spot", "COUNTED 3")
        server.wait_line("demand", "COUNTED 3")
        server.wait_line("stopping", "loss=0.5")
        server.client.stop_training_job(TrainingJobName="stopping")
        server.client.update_training_job(
            TrainingJobName="spot", ProfilerConfig={"ProfilingIntervalInMilliseconds": 500}
        )
        server.create("waiting", "quick", spot=False)
        server.create("last", "quick")
        waiting = server.wait("waiting", "Starting")
        before = {name: server.describe(name) for name in ("completed", "failed")}
        order = [item["TrainingJobName"] for item in server.client.list_training_jobs()["TrainingJobSummaries"]]
        assert not server.starts("waiting")

        server.kill(number)
        for path in server.hold.iterdir():
            path.unlink()
        server.start()
        after = {name: server.describe(name) for name in ("completed", "failed")}
        listed = [item["TrainingJobName"] for item in server.client.list_training_jobs()["TrainingJobSummaries"]]
        ended = {
            name: server.wait(name, "Completed", "Stopped", "Failed")
            for name in ("stopping", "uploading", "exited", "downloading", "waiting", "last")
        }
        for name in ("spot", "demand"):
            server.wait_told(name, "start", 2)
        running = {name: server.describe(name) for name in ("spot", "demand")}
        starts = {name: [word for word in server.starts(name) if word in ("start", "TWICE")] for name in order}
        for name in ("spot", "demand"):
            server.client.stop_training_job(TrainingJobName=name)
        keys = {name: server.keys(f"out/{name}/output/") for name in order}

    assert after == before
    assert listed == order
    assert waiting["SecondaryStatusTransitions"][-1]["StatusMessage"].startswith("Insufficient capacity")
    for name, description in running.items():
        assert statuses(description)[:5] == ["Starting", "Downloading", "Training", "Interrupted", "Starting"], name
        assert "the local platform ended" in description["SecondaryStatusTransitions"][3]["StatusMessage"]
        assert starts[name] == ["start", "start"]
        assert ("ProfilerConfig" in description) == (name == "spot"), "an update was lost"
        (metric,) = description["FinalMetricDataList"]
        assert metric["Value"] >= 3
    assert ended["stopping"]["TrainingJobStatus"] == "Stopped"
    assert statuses(ended["stopping"])[-3:] == ["Stopping", "Uploading", "Stopped"]
    assert ended["stopping"]["FinalMetricDataList"][0]["Value"] == 0.5
    for name in ("uploading", "exited"):
        assert statuses(ended[name]) == ["Starting", "Downloading", "Training", "Uploading", "Completed"], name
    assert statuses(ended["downloading"])[:4] == ["Starting", "Downloading", "Interrupted", "Starting"]
    for name in ("uploading", "exited", "downloading", "waiting", "last"):
        assert ended[name]["TrainingJobStatus"] == "Completed"
        assert starts[name] == ["start"], "a program that had ended ran again, or one ran twice"
        assert keys[name] == {"model.tar.gz"}
    assert statuses(ended["waiting"]) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert ended["waiting"]["TrainingStartTime"] <= ended["last"]["TrainingStartTime"], "the queue lost its order"


def test_what_was_not_uploaded_is_after_the_restart(tmp_path, s3_server):
    """Killed while Uploading: the last checkpoints and deletions reach S3 all the same."""
    script = """
        (CHECKPOINTS / "gone").write_text("1")
        (CHECKPOINTS / "kept").write_text("1")
        wait_uploaded("gone"); wait_uploaded("kept")
        (CHECKPOINTS / "gone").unlink()
        (CHECKPOINTS / "new").write_text("2")
        os.utime(CHECKPOINTS / "new", (1, 1))
    """
    with open_server(tmp_path, s3_server) as server:
        server.image("late", script)
        server.s3.put_object(Bucket=server.bucket, Key="ck/late/restored", Body=b"0")
        (server.hold / "upload-late").touch()
        server.start()
        server.create("late", "late")
        server.wait("late", "Uploading")
        # Somebody else has written there since: what was only restored is not to be put over it.
        server.s3.put_object(Bucket=server.bucket, Key="ck/late/restored", Body=b"another's")
        server.kill()
        (server.hold / "upload-late").unlink()
        server.start()
        description = server.wait("late", "Completed")

        assert server.keys("ck/late/") == {"restored", "kept", "new"}
        body = server.s3.get_object(Bucket=server.bucket, Key="ck/late/restored")["Body"].read()
        assert body == b"another's"
        server.wait_clean()
    assert statuses(description)[-2:] == ["Uploading", "Completed"]


def test_results_that_are_gone_are_made_again(tmp_path, s3_server):
    """Killed while Uploading, and the hosts' directories are lost: never Completed without the artifacts."""
    with open_server(tmp_path, s3_server) as server:
        server.image("quick", QUICK)
        (server.hold / "upload-job").touch()
        server.start()
        server.create("job", "quick")
        server.wait("job", "Uploading")
        server.kill()
        (server.hold / "upload-job").unlink()
        (server.state / "jobs/job").rename(tmp_path / "elsewhere")
        server.start()
        description = server.wait("job", "Completed")

        assert statuses(description)[2:5] == ["Training", "Uploading", "Interrupted"]
        assert server.starts("job") == ["start", "start"]
        assert server.keys("out/job/output/") == {"model.tar.gz"}


def test_the_schedule_goes_on_where_it_was(tmp_path, s3_server):
    """Reclaims that were used up stay so, and those that are left come, whatever the new server is told."""
    with open_server(tmp_path, s3_server, reclaim="step:2,step:5") as server:
        # The second attempt waits for the server's end.
        pause = (
            'if resumed and "pause" not in ledger.read_text():\n        tell("pause")\n        time.sleep(600)\n    '
        )
        script = "resumed = (CHECKPOINTS / 'state').exists()\n" + COUNT.replace(
            "print(f", pause + "report(step)\n    print(f"
        )
        server.image("count", script)
        server.start()
        server.create("job", "count", Environment={"LEDGER": str(tmp_path / "ledger/job"), "STEPS": "8"})
        server.wait_told("job", "pause")
        server.kill()
        server._options["reclaim"] = "none"
        server.start()
        description = server.wait("job", "Completed", "Failed")
        told = server.starts("job")

    names = statuses(description)
    words = [
        item["StatusMessage"] for item in description["SecondaryStatusTransitions"] if item["Status"] == "Interrupted"
    ]
    assert names[-1] == "Completed"
    assert sum("Spot capacity" in word for word in words) == 2, (words, told)
    assert sum("local platform" in word for word in words) == 1, (words, told)


def test_max_wait_counts_while_the_server_is_away(tmp_path, s3_server):
    """Time without a server is waiting time, and no training time."""
    with open_server(tmp_path, s3_server) as server:
        server.image("count", COUNT)
        server.start()
        stopping = {"MaxRuntimeInSeconds": 5, "MaxWaitTimeInSeconds": 5}
        server.create("job", "count", StoppingCondition=stopping)
        server.wait("job", "Training")
        killed_at = time.time()
        server.kill()
        while time.time() < killed_at + 6:
            time.sleep(0.1)
        server.start()
        description = server.wait("job", "MaxWaitTimeExceeded")

    assert statuses(description)[-3:] == ["Starting", "Stopping", "MaxWaitTimeExceeded"]
    assert description["TrainingTimeInSeconds"] <= killed_at - description["TrainingStartTime"].timestamp() + 2


def test_a_kill_that_comes_with_the_first_line_is_not_lost(tmp_path):
    """A server that closes at the very moment it makes a host waits for nobody."""
    config = {"mode": "plain", "command": ["sleep", "600"], "cwd": str(tmp_path), "environment": {}}
    control, output, report = os.pipe(), os.pipe(), os.pipe()
    forks = ForkServer()
    try:
        forks.fork("supervisor", control[0], output[1], report[1])
        os.close(report[1])
        os.write(control[1], json.dumps(config).encode() + b"\nK")
        with open(report[0]) as lines:
            assert lines.read().splitlines()[-2:] == ["exit 137", "gone 0"]
    finally:
        for fd in (*control, *output):
            os.close(fd)
        forks.close()


def test_a_start_that_fails_changes_nothing(tmp_path, s3_server, monkeypatch):
    """A server that can't read one of its jobs says which, and touches none; the next one that can finds all."""
    with open_server(tmp_path, s3_server) as server:
        server.image("quick", QUICK)
        (server.hold / "upload-job").touch()
        server.start()
        server.create("job", "quick")
        server.wait("job", "Uploading")
        server.kill()
        (server.hold / "upload-job").unlink()
        with closing(sqlite3.connect(server.state / "jobs.sqlite")) as store:
            ((good,),) = store.execute("SELECT progress FROM jobs")
            store.execute("UPDATE jobs SET progress = '{}'")
            store.commit()
        for name, value in s3_server.environment().items():
            monkeypatch.setenv(name, value)
        with pytest.raises(EngineError, match="Job job can't be read back"):
            LocalSageMaker(server.state, hosts="plain", s3_endpoint=s3_server.url).__enter__()
        with closing(sqlite3.connect(server.state / "jobs.sqlite")) as store:
            store.execute("UPDATE jobs SET progress = ?", (good,))
            store.commit()
        server.start()
        server.wait("job", "Completed")
        assert server.starts("job") == ["start"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_kills_lose_nothing(tmp_path, s3_server, seed):
    """Some dozen jobs, a server that is killed again and again: each job completes once, with its result."""
    rng = random.Random(seed)
    with open_server(tmp_path, s3_server, capacity=3, reclaim="poisson:1000/h", capacity_wait_seconds=0.1) as server:
        server.image("count", COUNT)
        server.image("fail", COUNT + "\nsys.exit(4)")
        server.start()
        jobs = {}
        for _ in range(12):
            for _ in range(rng.randrange(3)):
                name = f"job-{len(jobs)}"
                jobs[name] = rng.choice(["count", "count", "fail"])
                ledger = str(tmp_path / "ledger" / name)
                server.create(
                    name,
                    jobs[name],
                    spot=rng.random() < 0.5,
                    hosts=1,
                    Environment={"LEDGER": ledger, "STEPS": str(rng.randrange(1, 15))},
                )
            time.sleep(rng.expovariate(1 / 1.5))
            server.kill(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT]))
            server.start()
        listed = set()
        for page in server.client.get_paginator("list_training_jobs").paginate():
            listed |= {item["TrainingJobName"] for item in page["TrainingJobSummaries"]}
        assert listed == set(jobs), f"seed {seed}"
        deadline = time.monotonic() + 10 * PATIENCE_SECONDS
        for name, image in jobs.items():
            while (description := server.describe(name))["TrainingJobStatus"] in ("InProgress", "Stopping"):
                assert time.monotonic() < deadline, (seed, description)
                time.sleep(0.1)
            assert description["TrainingJobStatus"] == ("Failed" if image == "fail" else "Completed"), (
                seed,
                description,
            )
            words = server.starts(name)
            assert "TWICE" not in words, f"seed {seed}"
            froms = [int(word[5:]) for word in words if word.startswith("from:")]
            assert froms == sorted(froms), f"seed {seed}: {name} lost what was in S3: {froms}"
            assert server.keys(f"out/{name}/output/") == (set() if image == "fail" else {"model.tar.gz"})
        server.wait_clean()
