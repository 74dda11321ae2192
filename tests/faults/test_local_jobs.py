"""Jobs on the local SageMaker, with boto3 as the client and real processes."""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from local_rig import LOG_GROUP, open_rig, processes_with, statuses, wait_no_process_with

from spotproof.local.hosts import find_namespace_obstacle

NAMESPACE = pytest.param(
    "namespace", marks=pytest.mark.skipif(find_namespace_obstacle() is not None, reason="no namespaces here")
)
STRAIGHT = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
INTERRUPTED_ONCE = [*STRAIGHT[:3], "Interrupted", *STRAIGHT]


@pytest.fixture(params=[NAMESPACE, "plain"])
def hosts(request):
    """Both kinds of hosts."""
    return request.param


@pytest.fixture
def open_platform(tmp_path, s3_server, monkeypatch, hosts):
    """Open a platform with a schedule, in both kinds of hosts."""

    def open_it(reclaim="none", **options):
        return open_rig(tmp_path, s3_server, monkeypatch, reclaim=reclaim, hosts=hosts, **options)

    return open_it


def test_a_job_finds_its_world_and_its_results_are_uploaded(open_platform, hosts):
    """A job completes with the files, variables and directories of the contract, and its artifacts are in S3."""
    script = """
        config = {p.name: json.loads(p.read_text()) for p in (BASE / "input/config").iterdir()}
        facts = {
            "config": config, "cwd": os.getcwd(), "base": str(BASE), "pid": os.getpid(), "host": os.uname().nodename,
            "data": (BASE / "input/data/train/a/b.txt").read_text(), "code": sorted(os.listdir(".")),
            "env": dict(os.environ), "executable": sys.executable,
            "empty": [os.listdir(BASE / "model"), os.listdir(CHECKPOINTS)],
        }
        (BASE / "output/data/facts.json").write_text(json.dumps(facts))
        (BASE / "model/sub").mkdir()
        (BASE / "model/sub/model.pt").write_text("weights")
        print("loss=0.5"); print("loss=0.25"); print("loss=nan")
    """
    with open_platform(reclaim="at:1h") as rig:
        rig.s3.put_object(Bucket=rig.bucket, Key="data/a/b.txt", Body=b"input")
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{rig.bucket}/data/"}}
        name = rig.create(
            "complete",
            script,
            InputDataConfig=[{"ChannelName": "train", "DataSource": source}],
            HyperParameters={"lr": "0.1"},
            Environment={"MINE": "yes"},
            AlgorithmSpecification={
                "TrainingImage": "complete",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
            },
        )
        description = rig.wait(name)

        assert statuses(description) == STRAIGHT
        assert rig.unpack(f"out/{name}/output/model.tar.gz") == {"sub/model.pt": "weights"}
        facts = json.loads(rig.unpack(f"out/{name}/output/output.tar.gz")["facts.json"])
    config, env, base = facts["config"], facts["env"], facts["base"]
    assert config["hyperparameters.json"] == {"lr": "0.1"}
    assert config["inputdataconfig.json"]["train"]["TrainingInputMode"] == "File"
    assert config["inputdataconfig.json"]["train"]["S3DistributionType"] == "FullyReplicated"
    assert config["checkpointconfig.json"] == {"LocalPath": f"{base}/checkpoints"}
    assert config["resourceconfig.json"]["hosts"] == ["algo-1"]
    assert config["resourceconfig.json"]["current_host"] == "algo-1"
    assert config["resourceconfig.json"]["current_instance_type"] == "ml.m5.large"
    assert facts["data"] == "input"
    assert facts["cwd"] == f"{base}/code"
    assert facts["code"] == ["script.py"]
    assert facts["empty"] == [[], []]
    assert env["TRAINING_JOB_NAME"] == name
    assert env["TRAINING_JOB_ARN"] == description["TrainingJobArn"]
    assert env["MINE"] == "yes"
    assert env["AWS_REGION"]
    assert "SPOTPROOF_PROGRESS_SECONDS" not in env
    assert "PYTEST_CURRENT_TEST" not in env, "the server's own environment leaks into the job"
    if hosts == "namespace":
        assert (base, facts["pid"], facts["host"]) == ("/opt/ml", 1, "algo-1")
    else:
        assert env["SM_CHANNEL_TRAIN"] == f"{base}/input/data/train"
        assert env["SM_CHECKPOINT_DIR"] == f"{base}/checkpoints"
        assert env["SM_MODEL_DIR"] == f"{base}/model"
    assert description["FinalMetricDataList"][0]["Value"] == 0.25
    assert description["TrainingTimeInSeconds"] >= description["BillableTimeInSeconds"] >= 1
    assert description["TrainingStartTime"] <= description["TrainingEndTime"]


def test_after_a_reclaim_nothing_survives_but_s3(open_platform):
    """SIGKILL at a step: the next attempt finds its checkpoints as they were in S3 and everything else empty."""
    script = """
        tops = [BASE / top for top in ("model", "output", "code", "checkpoints")]
        left = [str(p.relative_to(BASE)) for top in tops for p in top.rglob("*") if p.is_file()]
        print("FOUND", json.dumps(sorted(left)), sorted(os.listdir(os.environ["TMPDIR"])), flush=True)
        if (CHECKPOINTS / "state").exists():
            print("RESUMED", (CHECKPOINTS / "state").read_text(), (CHECKPOINTS / "deep/er").read_text())
            sys.exit(0)
        signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM came", flush=True))
        for place in ("model/m", "output/data/o", "output/failure", "code/script.py", "code/new"):
            (BASE / place).write_text("changed")
        pathlib.Path(os.environ["TMPDIR"], "scratch").write_text("t")
        (CHECKPOINTS / "deep").mkdir()
        save("deep/er", "deeper")
        save("state", "step 7")
        wait_uploaded("state")
        report(7)
        save("late", "too late")
        while True:
            report(8)
    """
    with open_platform("step:7") as rig:
        name = rig.create("reclaimed", script)
        description = rig.wait(name)

        lines = rig.lines(name)
        keys = rig.keys(f"ck/{name}/")
    assert statuses(description) == INTERRUPTED_ONCE
    assert description["TrainingJobStatus"] == "Completed"
    found = [line for line in lines if line.startswith("FOUND")]
    # Python's own venv may be mounted below a job's /tmp; nothing else is there.
    assert found[0].startswith('FOUND ["code/script.py"]')
    assert found[1].startswith('FOUND ["checkpoints/deep/er", "checkpoints/state", "code/script.py"]')
    assert "scratch" not in found[1]
    assert lines[-1] == "RESUMED step 7 deeper"
    assert not any("SIGTERM" in line for line in lines), "a reclaim without grace sends no SIGTERM"
    assert keys == [f"ck/{name}/deep/er", f"ck/{name}/state"]


def test_the_kill_follows_the_line_at_once(open_platform):
    """A process that goes on after the awaited step is dead within milliseconds of reporting it."""
    script = """
        if not (CHECKPOINTS / "once").exists():
            save("once", "")
            wait_uploaded("once")
            for step in range(100000):
                report(step)
                time.sleep(0.005)
    """
    with open_platform("step:20") as rig:
        name = rig.create("quick", script)
        rig.wait(name)
        steps = [int(line.rpartition("=")[2]) for line in rig.lines(name) if "step=" in line]
    assert 20 <= steps[-1] < 20 + 30, "5 ms a step: the kill took more than 150 ms"


def test_two_reclaims_in_a_row_before_any_checkpoint(open_platform):
    """`step:0,step:0` takes two attempts in their first step; the third one completes."""
    script = """
        print("EACH", os.environ["SPOTPROOF_PROGRESS_SECONDS"])
        report(0)
        time.sleep(0.5)
    """
    with open_platform("step:0,step:0", capacity_wait_seconds=0) as rig:
        description = rig.run("twice", script)
        lines = rig.lines("twice")
    assert statuses(description) == [*STRAIGHT[:3], "Interrupted", *STRAIGHT[:3], "Interrupted", *STRAIGHT]
    assert lines == ["EACH 0", "[spotproof] attempt=0 epoch=0 step=0"] * 3


def test_a_grace_lets_the_job_save_and_leave(open_platform):
    """With a grace the job gets SIGTERM first; it may save and leave early, and is restarted then."""
    script = """
        if (CHECKPOINTS / "saved").exists():
            sys.exit(0)
        def leave(*_):
            save("saved", "in grace")
            wait_uploaded("saved")
            sys.exit(143)
        signal.signal(signal.SIGTERM, leave)
        report(3)
        while True:
            time.sleep(0.01)
    """
    with open_platform("step:3@grace=120") as rig:
        started = time.monotonic()
        description = rig.run("grace", script)
    assert statuses(description) == INTERRUPTED_ONCE
    assert time.monotonic() - started < 60


def test_on_demand_jobs_are_never_reclaimed(open_platform):
    """A schedule does nothing to a job without managed spot, and its billable seconds are its training seconds."""
    with open_platform("step:0,every:1ms") as rig:
        description = rig.run("ondemand", 'report(5); print(os.environ.get("SPOTPROOF_PROGRESS_SECONDS"))', spot=False)
        assert rig.lines("ondemand")[-1] == "None"
    assert statuses(description) == STRAIGHT
    assert description["BillableTimeInSeconds"] == description["TrainingTimeInSeconds"]


@pytest.mark.parametrize(
    ("script", "reason", "logged"),
    [
        ('(BASE / "output/failure").write_text("my reason"); sys.exit(7)', "my reason, exit code: 7", ""),
        ("sys.exit(7)", ", exit code: 7", ""),
        ('(BASE / "output/failure").mkdir(); sys.exit(7)', ", exit code: 7", ""),
        ('os.symlink("/etc/passwd", BASE / "output/failure"); sys.exit(7)', ", exit code: 7", ""),
        ('raise RuntimeError("broken")', ", exit code: 1", "RuntimeError: broken"),
        ("os.kill(os.getpid(), signal.SIGSEGV); os._exit(139)", ", exit code: 139", ""),
    ],
)
def test_a_failing_job_says_why(open_platform, script, reason, logged):
    """A non-zero exit ends Failed with SageMaker's FailureReason, and the traceback is in the log."""
    with open_platform() as rig:
        body = f'(BASE / "output/data/o").write_text("o"); (BASE / "model/m").write_text("m"); {script}'
        description = rig.run("failing", body)

        assert description["TrainingJobStatus"] == "Failed"
        assert description["FailureReason"] == f"AlgorithmError: {reason}"
        assert statuses(description) == [*STRAIGHT[:3], "Uploading", "Failed"]
        assert not logged or logged in rig.lines("failing")
        assert rig.keys("out/failing") == ["out/failing/output/output.tar.gz"]


def test_a_missing_command_is_told_in_the_log(open_platform):
    """A command that is not there ends like in a container engine: exit code 127 and a line that names it."""
    with open_platform() as rig:
        description = rig.run("missing", "", command=["no-such-program"])

        assert description["FailureReason"] == "AlgorithmError: , exit code: 127"
        assert "no-such-program" in rig.lines("missing")[-1]


def test_stop_gives_sigterm_to_the_command_and_keeps_its_results(open_platform):
    """StopTrainingJob: SIGTERM to the command, which may still save; then Uploading and Stopped, never a restart."""
    script = """
        def leave(*_):
            (BASE / "model/m").write_text("saved at stop")
            save("last", "x")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        print("READY", flush=True)
        while True:
            time.sleep(0.01)
    """
    with open_platform() as rig:
        name = rig.create("stopping", script)
        rig.wait_line(name, "READY")
        rig.sagemaker.stop_training_job(TrainingJobName=name)
        assert rig.describe(name)["TrainingJobStatus"] in ("Stopping", "Stopped")
        description = rig.wait(name)

        assert statuses(description) == [*STRAIGHT[:3], "Stopping", "Uploading", "Stopped"]
        assert rig.unpack(f"out/{name}/output/model.tar.gz") == {"m": "saved at stop"}
        assert rig.keys(f"ck/{name}") == [f"ck/{name}/last"], "the final drain is missing"
        with pytest.raises(rig.sagemaker.exceptions.ClientError, match="is in status Stopped"):
            rig.sagemaker.stop_training_job(TrainingJobName=name)


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(open_platform, monkeypatch):
    """SIGTERM without a handler does nothing to a PID 1; after the grace SIGKILL does."""
    monkeypatch.setattr("spotproof.local.state.STOP_GRACE_SECONDS", 0.3)
    script = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("READY", flush=True)
        while True:
            time.sleep(0.01)
    """
    with open_platform() as rig:
        name = rig.create("stubborn", script)
        rig.wait_line(name, "READY")
        rig.sagemaker.stop_training_job(TrainingJobName=name)
        assert rig.wait(name)["TrainingJobStatus"] == "Stopped"


def test_the_whole_tree_dies_with_a_reclaim(open_platform, tmp_path):
    """Children that left the group, double-forked and ignore SIGTERM are gone before the next attempt starts."""
    script = """
        def flee(depth):
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                if depth:
                    flee(depth - 1)
                time.sleep(600)
                os._exit(0)
        if not (CHECKPOINTS / "once").exists():
            save("once", "")
            wait_uploaded("once")
            for _ in range(3):
                flee(2)
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            report(1)
        else:
            subprocess.Popen(["sleep", "601"], start_new_session=True)
            print("DONE", flush=True)
            if os.getpid() != 1:
                time.sleep(0.1)
            sys.exit(0)
        time.sleep(600)
    """
    with open_platform("step:1", capacity_wait_seconds=0) as rig:
        name = rig.create("tree", script)
        rig.wait_line(name, "DONE")
        assert not processes_with(rig.mark(name, 0))
        rig.wait(name)
        assert not processes_with(rig.mark(name, 1)), "a container ends with its PID 1"
        assert not list((tmp_path / "state/jobs").glob("*/attempt-0000"))


def test_several_hosts_each_have_their_own(open_platform, hosts):
    """Two instances: two directories, names and logs; one job. The first that fails ends it for both."""
    script = """
        config = json.loads((BASE / "input/config/resourceconfig.json").read_text())
        print("I AM", config["current_host"], config["hosts"], os.uname().nodename, flush=True)
        (BASE / "model" / config["current_host"]).write_text(config["current_host"])
        if "FAIL" in os.environ and config["current_host"] == "algo-2":
            sys.exit(3)
        if "FAIL" in os.environ:
            time.sleep(600)
    """
    with open_platform() as rig:
        name = rig.create("pair", script, hosts=2)
        assert rig.wait(name)["TrainingJobStatus"] == "Completed"
        assert rig.unpack(f"out/{name}/output/model.tar.gz") == {"algo-1": "algo-1", "algo-2": "algo-2"}
        for index in (1, 2):
            line = rig.lines(name, index)[0]
            assert line.startswith(f"I AM algo-{index} ['algo-1', 'algo-2']")
            if hosts == "namespace":
                assert line.endswith(f" algo-{index}")

        name = rig.create("fails", script, hosts=2, Environment={"FAIL": "1"})
        assert rig.wait(name)["FailureReason"] == "AlgorithmError: , exit code: 3"


def test_reclaim_on_request(open_platform):
    """`POST /spotproof/reclaim` takes the running attempt; a job that does not run is refused."""
    script = """
        if not (CHECKPOINTS / "once").exists():
            save("once", "")
            wait_uploaded("once")
            print("READY", flush=True)
            time.sleep(600)
    """

    def reclaim(rig, name):
        body = json.dumps({"TrainingJobName": name}).encode()
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{rig.platform.url}/spotproof/reclaim", body, headers)
        ) as answer:
            return json.load(answer)

    with open_platform() as rig:
        name = rig.create("asked", script)
        rig.wait_line(name, "READY")
        assert reclaim(rig, name) == {"TrainingJobName": name, "Attempt": 0}
        assert statuses(rig.wait(name)) == INTERRUPTED_ONCE
        with pytest.raises(urllib.error.HTTPError) as caught:
            reclaim(rig, name)
        with caught.value as answer:
            assert "Completed" in json.load(answer)["message"]


def test_limits_end_a_job(open_platform, monkeypatch):
    """MaxRuntimeInSeconds over all attempts ends a job with Stopped and MaxRuntimeExceeded."""
    stopping = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 100}
    with open_platform() as rig:
        script = 'signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print("R", flush=True); time.sleep(600)'
        description = rig.run("long", script, StoppingCondition=stopping)
    assert description["TrainingJobStatus"] == "Stopped"
    assert description["SecondaryStatus"] == "MaxRuntimeExceeded"


def test_logs_read_like_cloudwatch(open_platform):
    """One stream a host for the whole job, readable at its end, in pages whose tokens repeat at the last."""
    script = """
        if not (CHECKPOINTS / "once").exists():
            save("once", "")
            wait_uploaded("once")
            for number in range(50):
                print("line", number)
            report(1)
            time.sleep(600)
        print("second attempt")
        sys.stdout.write("no newline at the end")
    """
    with open_platform("step:1", capacity_wait_seconds=0) as rig:
        name = rig.create("logging", script)
        rig.wait(name)
        answer = rig.logs.describe_log_streams(
            logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/", orderBy="LogStreamName", limit=1
        )
        (stream,) = answer["logStreams"]
        assert "nextToken" not in answer
        messages, token = [], None
        while True:
            more = {"nextToken": token} if token else {}
            page = rig.logs.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], startFromHead=True, limit=20, **more
            )
            messages += [event["message"] for event in page["events"]]
            if page["nextForwardToken"] == token:
                break
            token = page["nextForwardToken"]
        assert messages == rig.lines(name)
        assert messages[:2] == ["line 0", "line 1"]
        assert messages[-2:] == ["second attempt", "no newline at the end"]
        last = rig.logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], limit=1)
        assert last["events"][0]["message"] == "no newline at the end"
        since = page_since(rig, stream, last["events"][0]["timestamp"])
        assert "no newline at the end" in since, "startTime is inclusive"


def page_since(rig, stream, start):
    page = rig.logs.get_log_events(
        logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], startTime=start, startFromHead=True
    )
    return [event["message"] for event in page["events"]]


def test_closing_leaves_nothing(open_platform, tmp_path):
    """Closing the platform under a running job leaves no process, mount or directory of it."""
    with open_platform() as rig:
        mark = str(tmp_path / "state")
        name = rig.create("left", 'subprocess.Popen(["sleep", "600"]); print("READY", flush=True); time.sleep(600)')
        rig.wait_line(name, "READY")
        assert processes_with(rig.mark(name, 0))
    wait_no_process_with(rig.mark(name, 0))
    assert not processes_with(mark)
    assert not (tmp_path / "state/jobs").exists()
    assert not (tmp_path / "state/server.json").exists()
    assert mark not in Path("/proc/mounts").read_text()


def test_a_lost_supervisor_takes_its_host_along(open_platform, tmp_path):
    """If the process that holds a host is killed (by the kernel, short of memory), nothing of the host runs on."""
    script = """
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        print("READY", flush=True)
        time.sleep(600)
    """
    with open_platform() as rig:
        name = rig.create("orphan", script)
        rig.wait_line(name, "READY")
        for record in (tmp_path / "state/processes").glob("*.json"):
            os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
        assert rig.wait(name)["FailureReason"] == "AlgorithmError: , exit code: 137"
        wait_no_process_with(rig.mark(name, 0))


def test_times_and_traces_reclaim_too(open_platform, tmp_path):
    """`at:` fires by the clock, also when it came due while nothing ran; a trace takes capacity and gives it back."""
    with open_platform("at:100ms,at:150ms", capacity_wait_seconds=0.1) as rig:
        description = rig.run("clock", "time.sleep(0.4)")
    assert statuses(description) == [*STRAIGHT[:3], "Interrupted", *STRAIGHT[:3], "Interrupted", *STRAIGHT]

    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"metadata": {"gap_seconds": 60}, "data": [1, 1, 0, 0, 0] + [1] * 1000}))
    with open_platform(f"trace:{trace}@speed=400", capacity_wait_seconds=0) as rig:
        description = rig.run("traced", "time.sleep(0.4)")
        back_at = description["SecondaryStatusTransitions"][5]["StartTime"]
    assert statuses(description) == INTERRUPTED_ONCE
    assert (back_at - description["CreationTime"]).total_seconds() >= 0.75
