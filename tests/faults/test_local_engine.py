"""Real images, run by the container engines that this machine has. Where it has none, nothing here can run."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import boto3
import pytest
from botocore.exceptions import ClientError
from engine_rig import TRAIN, build_base_image, build_image, find_obstacle, leftovers, remove_image
from local_rig import open_rig, statuses, wait_no_process_with, wait_until

from spotproof.cli import run
from spotproof.local.registry import owner_id

BASE, IMAGE = "spotproof-test-base:1", "spotproof-test:1"
STRAIGHT = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
INTERRUPTED_ONCE = [*STRAIGHT[:3], "Interrupted", *STRAIGHT]
CONNECT = """
import socket
def connect(host, port):
    for _ in range(3000):
        try:
            return socket.create_connection((host, port), timeout=60)
        except OSError:
            time.sleep(0.01)
"""


@pytest.fixture(scope="module", params=["first", pytest.param("second", marks=pytest.mark.slow)])
def kind(request, tmp_path_factory):
    """An engine that has the tests' image: the first that answers here, then the second."""
    obstacles = {name: find_obstacle(name) for name in ("docker", "podman")}
    kinds = [name for name, obstacle in obstacles.items() if obstacle is None]
    number = ["first", "second"].index(request.param)
    if len(kinds) <= number:
        pytest.skip(f"no {request.param} container engine here: {obstacles}")
    kind = kinds[number]
    build_base_image(kind, BASE)
    files = {"/usr/bin/train": TRAIN, "/opt/ml/code/own.txt": "of the image"}
    build_image(kind, IMAGE, BASE, files, tmp_path_factory.mktemp("image") / "image")
    yield kind
    remove_image(kind, IMAGE)
    remove_image(kind, BASE)


@pytest.fixture
def open_platform(kind, tmp_path, s3_server, monkeypatch):
    """Open a platform on that engine; nothing of it may be left in the end."""

    def open_it(reclaim="none", **options):
        return open_rig(tmp_path, s3_server, monkeypatch, reclaim=reclaim, engine=kind, **options)

    yield open_it
    assert leftovers(kind, owner_id(tmp_path / "state")) == []


def create(rig, name, script, words=None, **changes):
    """Create a job of the tests' image."""
    request = rig.request(name, uri=IMAGE, **changes)
    request["HyperParameters"] = {"script": json.dumps(textwrap.dedent(script))}
    request["AlgorithmSpecification"] = {"TrainingImage": IMAGE, "TrainingInputMode": "File", **(words or {})}
    rig.sagemaker.create_training_job(**request)
    return name


def test_a_real_image_finds_its_world_and_its_results_are_uploaded(open_platform):
    """It runs as PID 1 of algo-1, and finds what SageMaker gives at /opt/ml, and code of its own there."""
    script = """
        (BASE / "model/m.txt").write_text("weights")
        (BASE / "output/data/d.txt").write_text("data")
        (BASE / "code/written.txt").write_text("stays in the container")
        facts = {
            "pid": os.getpid(), "argv": sys.argv, "name": os.uname().nodename,
            "own": (BASE / "code/own.txt").read_text(),
            "inputs": sorted(os.listdir(BASE / "input/data/training")),
            "resources": json.loads((BASE / "input/config/resourceconfig.json").read_text())["current_host"],
            "place": json.loads((BASE / "input/config/checkpointconfig.json").read_text())["LocalPath"],
            "job": os.environ["TRAINING_JOB_NAME"], "mine": os.environ["MINE"], "path": os.environ["PATH"],
            "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
            "shell": "SECRET_OF_THE_SHELL" in os.environ,
        }
        try:
            (BASE / "input/data/training/x").write_text("")
        except OSError as error:
            facts["refused"] = error.strerror
        save("c.txt", "checkpoint")
        print(json.dumps(facts), "and", file=sys.stderr)
        print("done")
    """
    channel = {
        "ChannelName": "training",
        "InputMode": "FastFile",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://{}/in/"}},
    }
    os.environ["SECRET_OF_THE_SHELL"] = "1"
    with open_platform() as rig:
        del os.environ["SECRET_OF_THE_SHELL"]
        rig.s3.put_object(Bucket=rig.bucket, Key="in/a,b.txt", Body=b"1")
        channel["DataSource"]["S3DataSource"]["S3Uri"] = f"s3://{rig.bucket}/in/"
        environment = {"MINE": "two\nlines", "PATH": "/usr/bin:/bin:/mine"}
        create(rig, "world", script, InputDataConfig=[channel], Environment=environment)
        description = rig.wait("world")
        assert statuses(description) == STRAIGHT, rig.lines("world")
        line = next(line for line in rig.lines("world") if line.endswith("} and"))
        facts = json.loads(line.removesuffix(" and"))
        assert facts.pop("shm") > 1 << 30
        assert facts == {
            "pid": 1,
            "argv": ["/usr/bin/train"],
            "name": "algo-1",
            "own": "of the image",
            "inputs": ["a,b.txt"],
            "resources": "algo-1",
            "place": "/opt/ml/checkpoints",
            "job": "world",
            "mine": "two\nlines",
            "path": "/usr/bin:/bin:/mine",
            "shell": False,
            "refused": "Read-only file system",
        }
        assert "done" in rig.lines("world")
        assert rig.unpack("out/world/output/model.tar.gz") == {"m.txt": "weights"}
        assert rig.unpack("out/world/output/output.tar.gz") == {"d.txt": "data"}
        assert rig.read("ck/world/c.txt") == b"checkpoint"


def test_a_failing_image_says_why(open_platform):
    """Its exit code and /opt/ml/output/failure become the FailureReason; stdout and stderr are in its log."""
    with open_platform() as rig:
        create(rig, "fails", '(BASE / "output/failure").write_text("no such data")\nprint("out"); sys.exit("err")')
        create(rig, "killed", "signal.raise_signal(signal.SIGABRT); os.kill(os.getpid(), 9); sys.exit(5)")
        request = rig.request("absent", uri=IMAGE)
        request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/no/such/program"]
        rig.sagemaker.create_training_job(**request)
        assert rig.wait("fails")["FailureReason"] == "AlgorithmError: no such data, exit code: 1"
        assert {"out", "err"} <= set(rig.lines("fails"))
        assert rig.wait("killed")["FailureReason"].endswith("exit code: 5")  # the kernel spares a PID 1
        assert rig.wait("absent")["FailureReason"].endswith("exit code: 127")
        assert any("/no/such/program" in line for line in rig.lines("absent"))


def test_entry_points_and_arguments_are_those_of_docker_run(open_platform):
    """ContainerEntrypoint replaces the image's and drops train; ContainerArguments replace train."""
    words = {
        "both": {"ContainerEntrypoint": ["sh", "-c"], "ContainerArguments": ["echo both $0 $1", "-a", "b c"]},
        "entry": {"ContainerEntrypoint": ["python", "-c", "import sys; print('entry', sys.argv)"]},
        "arguments": {"ContainerArguments": ["python", "-c", "import sys; print('arguments', sys.argv)", "--x"]},
    }
    seen = {"both": "both -a b c", "entry": "entry ['-c']", "arguments": "arguments ['-c', '--x']"}
    with open_platform() as rig:
        for name, algorithm in words.items():
            create(rig, name, "", algorithm)
        for name, line in seen.items():
            assert rig.wait(name)["TrainingJobStatus"] == "Completed", rig.lines(name)
            assert line in rig.lines(name)


def test_a_reclaim_takes_all_that_runs_in_the_container(open_platform):
    """SIGKILL reaches even what has left its session; the next attempt finds the checkpoint and nothing else."""
    script = """
        subprocess.Popen(["sleep", "3600"], start_new_session=True)
        signal.signal(signal.SIGTERM, lambda *_: print("was told", flush=True))
        found = sorted(os.listdir(CHECKPOINTS)), sorted(os.listdir(BASE / "model")), os.path.exists("/tmp/mine")
        print(*found, flush=True)
        pathlib.Path("/tmp/mine").write_text("")
        (BASE / "model/half").write_text("")
        if found[0]:
            sys.exit()
        save("c.txt", "1")
        wait_uploaded("c.txt")
        report(7)
        time.sleep(3600)
    """
    with open_platform(reclaim="step:7") as rig:
        create(rig, "reclaimed", script)
        assert statuses(rig.wait("reclaimed")) == INTERRUPTED_ONCE, rig.lines("reclaimed")
        lines = [line for line in rig.lines("reclaimed") if line.startswith("[") and "step" not in line]
        assert lines == ["[] [] False", "['c.txt'] [] False"]
        assert "was told" not in rig.lines("reclaimed")
        assert not processes_in_containers(rig, "reclaimed")


def test_a_stop_gives_sigterm_to_pid_1_and_keeps_its_results(open_platform):
    """The container has its grace, leaves by itself, and what it has written is uploaded."""
    script = """
        def leave(*_):
            (BASE / "model/m.txt").write_text("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        print("ready", flush=True)
        time.sleep(3600)
    """
    with open_platform() as rig:
        create(rig, "stopped", script)
        rig.wait_line("stopped", "ready")
        rig.sagemaker.stop_training_job(TrainingJobName="stopped")
        description = rig.wait("stopped")
        assert statuses(description)[-3:] == ["Stopping", "Uploading", "Stopped"], rig.lines("stopped")
        assert rig.unpack("out/stopped/output/model.tar.gz") == {"m.txt": "saved"}


def test_containers_of_one_job_meet_at_their_names_and_reach_s3(open_platform):
    """Two hosts use one port each on a network of their own; the endpoints of AWS are at its gateway."""
    script = """
        import urllib.error, urllib.parse, urllib.request
        NAME = os.uname().nodename
        listener = socket.create_server(("0.0.0.0", 7777))
        outgoing = connect({"algo-1": "algo-2", "algo-2": "algo-1"}[NAME], 7777)
        incoming, _ = listener.accept()
        outgoing.sendall(NAME.encode()); outgoing.close()
        print("met", incoming.recv(100).decode(), flush=True)
        interface = json.loads((BASE / "input/config/resourceconfig.json").read_text())["network_interface_name"]
        print("interface", interface in os.listdir("/sys/class/net"), flush=True)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            try:
                answer = urllib.request.urlopen(os.environ[name] + "/health", timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            print("reached", name, answer.status < 500, urllib.parse.urlsplit(os.environ[name]).hostname, flush=True)
    """
    with open_platform() as rig:
        create(rig, "pair", CONNECT + textwrap.dedent(script), hosts=2)
        description = rig.wait("pair")
        lines = [rig.lines("pair", host) for host in (1, 2)]
        assert statuses(description) == STRAIGHT, lines
        assert "met algo-2" in lines[0]
        assert "met algo-1" in lines[1]
        for one in lines:
            assert "interface True" in one
            assert [line.rpartition(" ")[0] for line in one if line.startswith("reached")] == [
                "reached AWS_ENDPOINT_URL True",
                "reached AWS_ENDPOINT_URL_S3 True",
            ]
            assert not any(line.endswith("127.0.0.1") for line in one)


def test_an_isolated_container_reaches_nothing(open_platform):
    """It has eth0 and no way out of its network, and no keys."""
    script = """
        print("keys", [name for name in os.environ if name.startswith("AWS_ACCESS")], flush=True)
        print("interfaces", sorted(os.listdir("/sys/class/net")), flush=True)
        for address in (("192.0.2.1", 9), ("8.8.8.8", 53)):
            try:
                socket.create_connection(address, timeout=3)
            except OSError as error:
                print("refused", address[0], flush=True)
    """
    with open_platform() as rig:
        create(rig, "isolated", "import socket\n" + textwrap.dedent(script), EnableNetworkIsolation=True)
        rig.wait("isolated")
        lines = rig.lines("isolated")
        assert "keys []" in lines
        assert any(line.startswith("interfaces") and "'eth0'" in line and "'lo'" in line for line in lines)
        assert [line for line in lines if line.startswith("refused")] == ["refused 192.0.2.1", "refused 8.8.8.8"]


@pytest.mark.slow
def test_a_container_that_takes_too_much_memory_is_killed(open_platform):
    """The limits of a host are those of its container."""
    script = """
        print("limited", flush=True)
        taken = bytearray(256 << 20)
        for place in range(0, len(taken), 4096):
            taken[place] = 1
        print("not limited", flush=True)
    """
    with open_platform(host_memory="64MiB", host_cpus=1) as rig:
        create(rig, "greedy", script)
        assert rig.wait("greedy")["FailureReason"].endswith("exit code: 137"), rig.lines("greedy")
        assert rig.lines("greedy") == ["limited"]


def test_an_unknown_image_is_refused_with_words(open_platform, kind):
    """What is neither mapped nor in the engine is refused at create; the words say how to map and how to get it."""
    with open_platform() as rig:
        for uri in ("no-such-image:1", "--help", "UPPER/case:1"):
            with pytest.raises(ClientError, match="does not know the training image") as caught:
                rig.sagemaker.create_training_job(**rig.request("refused", uri=uri))
            assert f"--image {uri}=FOLDER" in str(caught.value)
            assert f"{kind} pull {uri}" in str(caught.value)


@pytest.mark.slow
def test_a_job_keeps_the_image_it_was_created_with(open_platform, kind, tmp_path):
    """A tag that moves on between two attempts takes no job with it."""
    tag = "spotproof-test-moving:1"
    script = """
        print("attempt of", VERSION, flush=True)
        if os.listdir(CHECKPOINTS):
            sys.exit()
        save("c", "1")
        wait_uploaded("c")
        print("saved", flush=True)
        time.sleep(3600)
    """

    def build(version):
        program = TRAIN.replace("exec(", f"VERSION = {version}\nexec(")
        build_image(kind, tag, IMAGE, {"/usr/bin/train": program}, tmp_path / f"image-{version}")

    build(1)
    try:
        with open_platform() as rig:
            create(rig, "moving", script, {"TrainingImage": tag})
            rig.wait_line("moving", "saved")
            build(2)
            rig.ask("reclaim", TrainingJobName="moving")
            assert rig.wait("moving")["TrainingJobStatus"] == "Completed", rig.lines("moving")
            assert [line for line in rig.lines("moving") if "attempt" in line] == ["attempt of 1", "attempt of 1"]
            create(rig, "moved", script, {"TrainingImage": tag})
            rig.wait_line("moved", "attempt of 2")
    finally:
        remove_image(kind, tag)


SERVER = """
import sys, threading
from spotproof.local import LocalSageMaker
with LocalSageMaker(sys.argv[1], engine=sys.argv[2], s3_endpoint=sys.argv[3]) as platform:
    print(platform.url, flush=True)
    threading.Event().wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["server", "all"])
def test_nothing_of_a_killed_server_stays(open_platform, kind, tmp_path, s3_server, victims):
    """Keepers end their containers when the server dies; if they are killed with it, the next server does."""
    state = tmp_path / "state"
    script = 'print("at work", os.listdir(CHECKPOINTS), flush=True)\nif os.listdir(CHECKPOINTS): sys.exit()\n'
    script += 'save("c", "1"); wait_uploaded("c"); print("saved", flush=True); time.sleep(3600)'
    with open_platform() as rig:  # gives names to the bucket and the request
        request = {**rig.request("orphan", uri=IMAGE, hosts=2), "HyperParameters": {"script": json.dumps(script)}}
        request["CheckpointConfig"] = {"S3Uri": f"s3://{rig.bucket}/ck/orphan/"}
    command = [sys.executable, "-c", SERVER, str(state), kind, s3_server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **s3_server.environment()}) as server:
        url = server.stdout.readline().decode().strip()
        keys = s3_server.environment()
        session = boto3.Session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
        client = session.client("sagemaker", endpoint_url=url)
        client.create_training_job(**request)
        logs = state / "logs/orphan"
        wait_until(lambda: sum("saved" in path.read_text() for path in logs.glob("*.log")) == 2)
        assert len(leftovers(kind, owner_id(state))) == 3  # two containers and their network
        keepers = [json.loads(path.read_text())["pid"] for path in (state / "processes").glob("*.json")]
        os.kill(server.pid, signal.SIGKILL)
        if victims == "all":
            for pid in keepers:
                os.kill(pid, signal.SIGKILL)
        client.close()
    if victims == "server":
        wait_until(lambda: leftovers(kind, owner_id(state)) == [])
    else:
        assert len(leftovers(kind, owner_id(state))) == 3
    with open_platform() as rig:
        description = rig.wait("orphan")
        assert description["TrainingJobStatus"] == "Completed", rig.lines("orphan")


def processes_in_containers(rig, name):
    """Return whether a process of a job's containers is still there; they have its mark."""
    try:
        wait_no_process_with(rig.mark(name, 0))
    except AssertionError:
        return True
    return False


def test_what_image_build_makes_runs_as_a_job(open_platform, kind, tmp_path):
    """Source, Dockerfile and this Spotproof become an image whose PID 1 is ours: options, SM_*, SIGTERM, exit code."""
    source, tag = tmp_path / "source", "spotproof-test-built:1"
    source.mkdir()
    (source / "train.py").write_text(BUILT_PROGRAM)
    (source / "Dockerfile").write_text(BUILT_DOCKERFILE)
    (tmp_path / "job.yaml").write_text(
        f"name: built\nimage_uri: {tag}\nrole: arn:aws:iam::111122223333:role/R\ninstance_type: ml.m5.large\n"
        f"output_path: s3://bucket/o\nsource_dir: source\nentrypoint: [python, train.py]\n"
    )
    assert run(["image", "build", str(tmp_path / "job.yaml"), "--engine", kind]) == 0
    try:
        with open_platform() as rig:
            for name, mode in (("ended", "end"), ("stopped", "wait")):
                request = rig.request(name, uri=tag, hosts=1 + (mode == "end"))
                del request["CheckpointConfig"]  # to read those ahead it needs packages that are not in this image
                rig.sagemaker.create_training_job(**request, HyperParameters={"mode": mode, "lr": "0.1"})
            assert rig.wait("ended")["FailureReason"].endswith("exit code: 3"), rig.lines("ended")
            assert "['--lr', '0.1', '--mode', 'end'] algo-2 algo-1 2 /opt/ml/model" in rig.lines("ended", 2)
            rig.wait_line("stopped", "waiting")
            rig.sagemaker.stop_training_job(TrainingJobName="stopped")
            assert rig.wait("stopped")["TrainingJobStatus"] == "Stopped"
            assert "told" in rig.lines("stopped")
    finally:
        remove_image(kind, tag)


BUILT_DOCKERFILE = f"""
FROM {BASE}
COPY . /opt/program/
# No pip in it: a wheel is a zip.
RUN cd /opt/program && python -c "import glob, zipfile; zipfile.ZipFile(*glob.glob('*.whl')).extractall('/opt/site')"
ENV PYTHONPATH=/opt/site PYTHONUNBUFFERED=1
WORKDIR /opt/program
ENTRYPOINT ["python", "-m", "spotproof.container", "train.py"]
"""
BUILT_PROGRAM = """
import os, signal, sys, time
e = os.environ
print(sys.argv[1:], e["SM_CURRENT_HOST"], e.get("MASTER_ADDR"), e.get("WORLD_SIZE"), e["SM_MODEL_DIR"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("told") or 143))
if "wait" in sys.argv:
    print("waiting")
    time.sleep(3600)
sys.exit(3)
"""
