"""What the tests of the local SageMaker share: a platform, boto3 as its client, and jobs of a few lines."""

import json
import os
import tarfile
import textwrap
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from spotproof.local import Image, LocalSageMaker
from spotproof.local.registry import owner_id

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
ROLE = "arn:aws:iam::123456789012:role/Training"
PATIENCE_SECONDS = 60


def wait_until(is_so):
    """Return once *is_so* returns something true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Rig:
    """One platform and its clients."""

    def __init__(self, platform, images_dir):
        self.platform = platform
        self._images_dir = images_dir
        self._owner = owner_id(platform.state_dir)
        environment = platform.environment()
        session = boto3.Session(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_DEFAULT_REGION"],
        )

        def client(service, endpoint):
            config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
            return session.client(service, endpoint_url=endpoint, config=config)

        self.sagemaker = client("sagemaker", platform.url)
        self.logs = client("logs", platform.url)
        self.s3 = client("s3", platform.s3_url)
        self.bucket = f"b{time.time_ns()}"
        self.s3.create_bucket(Bucket=self.bucket)

    def close(self):
        for client in (self.sagemaker, self.logs, self.s3):
            client.close()

    def request(self, name, uri="image", *, spot=True, hosts=1, **changes):
        """Return a CreateTrainingJob request."""
        stopping = {"MaxRuntimeInSeconds": 100, **({"MaxWaitTimeInSeconds": 200} if spot else {})}
        return {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {"TrainingImage": uri, "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out/"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1},
            "StoppingCondition": stopping,
            "EnableManagedSpotTraining": spot,
            "CheckpointConfig": {"S3Uri": f"s3://{self.bucket}/ck/{name}/"},
            **changes,
        }

    def create(self, name, script, command=("python", "script.py"), **changes):
        """Create a job that runs *script*."""
        folder = self._images_dir / name
        folder.mkdir(parents=True)
        (folder / "script.py").write_text(PREAMBLE + textwrap.dedent(script))
        self.platform._images[name] = Image(folder, list(command))
        self.sagemaker.create_training_job(**self.request(name, uri=name, **changes))
        return name

    def describe(self, name):
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def wait(self, name, patience_seconds=PATIENCE_SECONDS):
        """Return the job's description once it has ended."""
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            description = self.describe(name)
            if description["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
                return description
            time.sleep(0.02)
        raise AssertionError(f"{name} did not end: {self.describe(name)}, log: {self.lines(name)}")

    def run(self, name, script, **changes):
        """Return the description of a job that has run to its end."""
        return self.wait(self.create(name, script, **changes))

    def ask(self, door, **fields):
        """Return the answer of one of the platform's own doors."""
        with urllib.request.urlopen(self._door_request(door, fields), timeout=PATIENCE_SECONDS) as answer:
            return json.loads(answer.read())

    def refusal(self, door, body, **headers):
        """Return the status and the words with which it refuses."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(self._door_request(door, body, headers), timeout=PATIENCE_SECONDS)
        with caught.value as answer:
            return f"{answer.status} {json.loads(answer.read())['message']}"

    def _door_request(self, door, body, headers=None):
        headers = {"Content-Type": "application/json", **(headers or {})}
        url = f"{self.platform.url}/spotproof/{door}"
        return urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")

    def lines(self, name, host=1):
        """Return the messages of a host's log."""
        files = list(Path(self.platform.state_dir, "logs", name).glob(f"algo-{host}-*.log"))
        return [line.partition(" ")[2] for file in files for line in file.read_text().splitlines()]

    def wait_line(self, name, text, host=1, patience_seconds=PATIENCE_SECONDS):
        """Return once a host's log has a line with *text*."""
        deadline = time.monotonic() + patience_seconds
        while not any(text in line for line in self.lines(name, host)):
            assert time.monotonic() < deadline, (self.lines(name, host), self.describe(name))
            time.sleep(0.01)

    def mark(self, name, attempt):
        """Return what every process of that attempt has in its environment."""
        return f"={self._owner}/{name}/attempt-{attempt}/"

    def keys(self, prefix=""):
        answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in answer.get("Contents", [])]

    def read(self, key):
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def unpack(self, key):
        """Return name -> content of the files in a tar.gz."""
        with tarfile.open(fileobj=BytesIO(self.read(key)), mode="r:gz") as archive:
            return {item.name: archive.extractfile(item).read().decode() for item in archive if item.isfile()}


# What every job's script begins with: BASE is /opt/ml wherever that is.
PREAMBLE = """
import json, os, pathlib, signal, subprocess, sys, time
BASE = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
CHECKPOINTS = BASE / "checkpoints"
def report(step):
    print(f"[spotproof] attempt=0 epoch=0 step={step}", flush=True)
def save(name, text):
    staged = CHECKPOINTS / (name + ".sagemaker-ignore")
    staged.write_text(text)
    staged.rename(CHECKPOINTS / name)
def wait_uploaded(name):
    while not (CHECKPOINTS / (name + ".sagemaker-uploaded")).exists():
        time.sleep(0.01)
"""


def statuses(description):
    return [item["Status"] for item in description["SecondaryStatusTransitions"]]


@contextmanager
def open_rig(folder, s3_server, monkeypatch, **options):
    """Yield a rig over an S3 server that runs already."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    with LocalSageMaker(folder / "state", s3_endpoint=s3_server.url, **options) as platform:
        rig = Rig(platform, folder / "images")
        try:
            yield rig
        finally:
            rig.close()


def processes_with(mark):
    """Return the command lines of all processes whose environment or command line holds *mark*."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in text and state != "Z" and entry.name != str(os.getpid()):
            found.append((entry / "cmdline").read_bytes() if entry.exists() else b"")
    return found


def wait_no_process_with(mark):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found := processes_with(mark):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
