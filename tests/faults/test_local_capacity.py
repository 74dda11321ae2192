"""Jobs that share a few hosts, jobs that are tried again, and what may be done to a job that is there."""

import time

import pytest
from local_rig import open_rig, statuses

from spotproof.errors import EngineError
from spotproof.local import hosts as hosts_module

HOLD = 'print("HOLDS", flush=True)\ntime.sleep(600)'


@pytest.fixture
def open_platform(tmp_path, s3_server, monkeypatch):
    """Open a platform with plain hosts."""
    return lambda **options: open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", **options)


def refusal(rig, call, **arguments):
    """Return the code and message that a call is refused with."""
    with pytest.raises(rig.sagemaker.exceptions.ClientError) as caught:
        getattr(rig.sagemaker, call)(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def begin_waiting(rig, name):
    """Return once the job stands in the queue."""
    deadline = time.monotonic() + 60
    while "Insufficient capacity" not in rig.describe(name)["SecondaryStatusTransitions"][-1]["StatusMessage"]:
        assert time.monotonic() < deadline, rig.describe(name)
        time.sleep(0.01)


def test_first_come_first_served(open_platform):
    """Jobs wait in Starting for free hosts, in their order, and a reclaimed one behind them."""
    with open_platform(capacity=2, capacity_wait_seconds=0) as rig:
        rig.create("first", HOLD)
        rig.wait_line("first", "HOLDS")
        for name, hosts in (("large", 2), ("small", 1), ("stopped", 1)):
            rig.create(name, 'print("RUNS", flush=True)', hosts=hosts)
            begin_waiting(rig, name)
        rig.sagemaker.stop_training_job(TrainingJobName="stopped")
        assert statuses(rig.wait("stopped")) == ["Starting", "Stopping", "Stopped"]
        assert rig.describe("large")["SecondaryStatus"] == "Starting"
        assert rig.platform._jobs.live("first").reclaim() == 0
        done = {name: rig.wait(name) for name in ("large", "small")}
        rig.wait_line("first", "HOLDS")
        begun = [
            item for item in rig.describe("first")["SecondaryStatusTransitions"] if item["Status"] == "Downloading"
        ]
        rig.sagemaker.stop_training_job(TrainingJobName="first")
        rig.wait("first")
    assert {item["TrainingJobStatus"] for item in done.values()} == {"Completed"}
    assert done["large"]["TrainingStartTime"] <= done["small"]["TrainingStartTime"]
    assert begun[-1]["StartTime"] >= done["small"]["TrainingStartTime"], (
        "the reclaimed job went ahead of those that waited"
    )
    assert len(begun) == 2


def test_more_hosts_than_there_are_is_refused(open_platform):
    """In the service's words for a quota, with the option that helps; spot has a quota of its own name."""
    with open_platform(capacity=2) as rig:
        for is_spot, name in ((True, "spot training job usage"), (False, "training job usage")):
            code, message = refusal(rig, "create_training_job", **rig_request(rig, hosts=3, spot=is_spot))
            assert code == "ResourceLimitExceeded"
            assert message.startswith(
                f"The account-level service limit 'ml.m5.large for {name}' is 2 Instances, with current utilization of "
                "0 Instances and a request delta of 3 Instances. Please contact AWS support to request an increase"
            )
            assert "--capacity 3" in message
        assert rig.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def rig_request(rig, **changes):
    from spotproof.local import Image

    rig.platform._images.setdefault("image", Image(rig.platform.state_dir, ["true"]))
    return rig.request("more", **changes)


def test_max_wait_runs_in_the_queue(open_platform):
    """A spot job that finds no host in its time ends with MaxWaitTimeExceeded; the next in line gets its turn."""
    with open_platform(capacity=1) as rig:
        rig.create("first", HOLD)
        rig.wait_line("first", "HOLDS")
        rig.create("short", "", StoppingCondition={"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1})
        assert statuses(rig.wait("short")) == ["Starting", "Stopping", "MaxWaitTimeExceeded"]
        assert "TrainingTimeInSeconds" not in rig.describe("short")


@pytest.mark.parametrize(("allowed", "failures", "status"), [(2, 2, "Completed"), (1, 2, "Failed"), (0, 1, "Failed")])
def test_an_internal_error_is_retried_as_often_as_asked(open_platform, monkeypatch, allowed, failures, status):
    """A host that can't be made is made again in a new attempt; interruptions use up none of the retries."""
    real, calls = hosts_module.Host.open, []

    def open_host(self):
        calls.append(1)
        if len(calls) <= failures:
            raise EngineError("The host can't be made:", why="the test says so.")
        real(self)

    monkeypatch.setattr(hosts_module.Host, "open", open_host)
    script = """
        if not (CHECKPOINTS / "once").exists():
            save("once", "")
            wait_uploaded("once")
            report(1)
            time.sleep(600)
    """
    strategy = {"RetryStrategy": {"MaximumRetryAttempts": allowed}} if allowed else {}
    with open_platform(reclaim="step:1", capacity_wait_seconds=0) as rig:
        description = rig.run("job", script, **strategy)
    names = statuses(description)
    words = [
        item["StatusMessage"] for item in description["SecondaryStatusTransitions"] if item["Status"] == "Starting"
    ]
    assert description["TrainingJobStatus"] == status
    assert words[1 : allowed + 1] == ["Launched instance was unhealthy, replacing it!"] * allowed
    if status == "Completed":
        assert names == [*["Starting", "Downloading"] * 3, "Training", "Interrupted", *names[-5:]]
        assert names[-5:] == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    else:
        assert names == [*["Starting", "Downloading"] * (allowed + 1), "Failed"]
        assert description["FailureReason"].startswith("InternalServerError: ")


def test_a_deleted_jobs_name_is_free(open_platform):
    """Only a job that has ended can be deleted; its logs and objects stay, and its name can be used again."""
    with open_platform() as rig:
        rig.create("job", '(BASE / "model/m").write_text("m"); ' + HOLD.replace("\n", ";"))
        rig.wait_line("job", "HOLDS")
        code, message = refusal(rig, "delete_training_job", TrainingJobName="job")
        assert (code, "status InProgress" in message) == ("ResourceInUse", True)
        assert refusal(rig, "delete_training_job", TrainingJobName="other")[0] == "ValidationException"
        rig.sagemaker.stop_training_job(TrainingJobName="job")
        rig.wait("job")
        assert refusal(rig, "stop_training_job", TrainingJobName="job") == (
            "ValidationException",
            "The request was rejected because the training job is in status Stopped.",
        )
        rig.sagemaker.delete_training_job(TrainingJobName="job")
        assert refusal(rig, "describe_training_job", TrainingJobName="job")[0] == "ValidationException"
        assert rig.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
        assert rig.keys("out/job/") == ["out/job/output/model.tar.gz"]
        rig.sagemaker.create_training_job(
            **rig.request("job", uri="job", spot=False, StoppingCondition={"MaxRuntimeInSeconds": 1})
        )
        assert statuses(rig.wait("job"))[-1] == "MaxRuntimeExceeded"
        assert rig.lines("job").count("HOLDS") == 2
        assert len(list((rig.platform.state_dir / "logs/job").iterdir())) == 2


def test_what_an_update_may_change(open_platform):
    """Profiler and remote debugging of a job in progress; no warm pool, for there is none; nothing of an ended job."""
    with open_platform(capacity=1) as rig:
        rig.create("job", HOLD)
        rig.wait_line("job", "HOLDS")
        rig.create("waiting", "")
        begin_waiting(rig, "waiting")
        arn = rig.sagemaker.update_training_job(
            TrainingJobName="job",
            ProfilerConfig={"ProfilingIntervalInMilliseconds": 500},
            RemoteDebugConfig={"EnableRemoteDebug": True},
        )["TrainingJobArn"]
        description = rig.describe("job")
        assert arn == description["TrainingJobArn"]
        assert description["ProfilerConfig"] == {"ProfilingIntervalInMilliseconds": 500}
        assert description["RemoteDebugConfig"] == {"EnableRemoteDebug": True}
        pool = {"KeepAlivePeriodInSeconds": 60}
        assert "warm pool" in refusal(rig, "update_training_job", TrainingJobName="job", ResourceConfig=pool)[1]
        remote = {"EnableRemoteDebug": True}
        words = refusal(rig, "update_training_job", TrainingJobName="waiting", RemoteDebugConfig=remote)[1]
        assert "Downloading or Training" in words
        rig.sagemaker.stop_training_job(TrainingJobName="waiting")
        rig.wait("waiting")
        words = refusal(rig, "update_training_job", TrainingJobName="waiting", ProfilerConfig={})[1]
        assert "status Stopped" in words
        assert (
            refusal(rig, "update_training_job", TrainingJobName="none", ProfilerConfig={})[0] == "ValidationException"
        )


def test_warm_pools_and_spot_exclude_each_other(open_platform):
    """KeepAlivePeriodInSeconds is repeated on demand, and refused with managed spot."""
    with open_platform() as rig:
        resources = {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
            "KeepAlivePeriodInSeconds": 60,
        }
        request = rig_request(rig, ResourceConfig=resources)
        assert "KeepAlivePeriodInSeconds" in refusal(rig, "create_training_job", **request)[1]
        rig.sagemaker.create_training_job(**rig_request(rig, spot=False, ResourceConfig=resources))
        assert rig.wait("more")["ResourceConfig"] == resources


def test_an_ended_job_keeps_nothing_in_the_server(open_platform):
    """No thread, open file or job object is left of a job that has ended, and it is described as before."""
    with open_platform() as rig:
        description = rig.run("job", "print(1)")
        deadline = time.monotonic() + 60
        while rig.platform._jobs._live:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        import threading

        assert [
            thread.name for thread in threading.enumerate() if thread.name.startswith(("job", "watch job", "sync"))
        ] == []
        again = rig.describe("job")
        for answer in (description, again):
            del answer["ResponseMetadata"]
        assert again == description
