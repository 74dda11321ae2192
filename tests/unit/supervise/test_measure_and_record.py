"""What is read off a run, and what is written down of it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from run_world import TIMES, ZERO, World

from spotproof import SpecError
from spotproof.launch import build_request
from spotproof.spec import parse_job_spec
from spotproof.storage import LocalStorage
from spotproof.supervise import (
    Goal,
    Machine,
    RunJob,
    RunRecord,
    Submit,
    build_state,
    measure,
    read_record,
    write_record,
)
from spotproof.supervise.record import job_name, job_number, read_stops, write_stop
from spotproof.supervise.supervisor import request_of_job

GOAL = Goal(
    machines=(
        Machine(instance_type="ml.g5.xlarge", spot_usd_per_hour=0.6, on_demand_usd_per_hour=1.4),
        Machine(instance_type="ml.p3.2xlarge"),
    ),
    deadline_at=ZERO + timedelta(hours=10),
    work_seconds=9000.0,
)


def world_at(seconds, *, away_from=10**9):
    """A run of 3600 steps of 2 s, on spot until *away_from*."""
    world = World(lambda _, at: at < away_from, GOAL, total_steps=3600, seconds_per_step=2.0)
    world.submit(Submit(True, 0, ""))
    world.advance(seconds)
    return world


def measured_of(world):
    return measure(world.run_jobs(), world.look(), GOAL, TIMES)


def test_work_is_assumed_until_a_pace_is_known():
    """At first what the user has said; then steps and pace, with a margin."""
    early, later = measured_of(world_at(400.0)), measured_of(world_at(3000.0))
    assert early.is_assumed
    assert early.left_seconds == GOAL.work_seconds
    assert not later.is_assumed
    assert later.seconds_per_step == pytest.approx(2.0 * 1.05, rel=0.01)
    assert later.left_seconds == pytest.approx((3600 - later.step) * later.seconds_per_step)


def test_without_machines_only_what_is_in_s3_is_done():
    """The steps that a reclaim took must be done again, and count as work."""
    running = world_at(3000.0)
    waiting = world_at(3060.0, away_from=3000.0)
    assert measured_of(running).step == int(running.step) > waiting.durable
    assert measured_of(waiting).step == waiting.durable


def test_start_ups_are_measured():
    """From Downloading to the first step; what comes before it stays assumed."""
    assert measured_of(world_at(3000.0)).start_seconds == pytest.approx(
        TIMES.platform_seconds + 30.0 + 60.0 + TIMES.switch_seconds, abs=61.0
    )
    assert measured_of(world_at(200.0)).start_seconds == (
        TIMES.platform_seconds + TIMES.warm_up_seconds + TIMES.switch_seconds
    )


def test_money_is_counted_on_the_safe_side():
    """Of what the service bills and what the machines' time costs, the greater; unknown without a price."""
    world = world_at(3000.0)
    description = world.describe(world.jobs[0]) | {
        "TrainingJobStatus": "Stopped",
        "TrainingTimeInSeconds": 2000,
        "BillableTimeInSeconds": 1000,
    }

    def spent(goal, **changes):
        jobs = [RunJob(number=1, description=description | changes)]
        measured = measure(jobs, world.look(), goal, TIMES)
        return build_state(goal, ZERO, jobs, world.look(), measured, ZERO, TIMES).spent_usd

    assert spent(GOAL) == pytest.approx(1000 * 1.4 / 3600)
    assert spent(GOAL, BillableTimeInSeconds=100) == pytest.approx(2000 * 0.6 / 3600)
    assert spent(replace(GOAL, machines=(Machine(instance_type="ml.g5.xlarge"),))) is None


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({"TrainingJobStatus": "Completed"}, "completed"),
        ({"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: ValueError"}, "failed"),
        ({"TrainingJobStatus": "Failed", "FailureReason": "CapacityError: Unable to provision"}, "capacity"),
        ({"TrainingJobStatus": "Failed", "FailureReason": "InternalServerError: We encountered"}, "service"),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxWaitTimeExceeded"}, "out of wait"),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}, "out of time"),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}, "by hand"),
    ],
)
def test_how_a_job_ended(changes, ending):
    """By the service's words; a stop that no supervisor has written down was somebody's."""
    world = world_at(600.0)
    job = RunJob(number=1, description=world.describe(world.jobs[0]) | changes)
    state = build_state(GOAL, ZERO, [job], world.look(), measured_of(world), ZERO, TIMES)
    assert state.endings == (ending,)
    if ending == "by hand":
        state = build_state(
            GOAL, ZERO, [replace(job, stop_reason="deadline")], world.look(), measured_of(world), ZERO, TIMES
        )
        assert state.endings == ("deadline",)


SPEC = {
    "name": "job",
    "image_uri": "image:1",
    "role": "arn:aws:iam::123456789012:role/Train",
    "instance_types": ["ml.g5.xlarge", "ml.p3.2xlarge"],
    "use_spot_instances": True,
    "max_run": 9000,
    "max_wait": 36000,
    "deadline": "36h",
    "max_cost_usd": 50.0,
    "checkpoint_s3_uri": "s3://bucket/ck/",
    "output_path": "s3://bucket/out",
    "entrypoint": "train.py --fast",
    "hyperparameters": {"lr": 0.1, "layers": [1, 2], "name": "1e3"},
    "metric_definitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
}


def test_a_record_gives_back_the_same_jobs(tmp_path):
    """The requests of a supervisor that reads the record are those of the one that wrote it; it is written once."""
    storage = LocalStorage(tmp_path)
    request = build_request(parse_job_spec(SPEC), job_name="job-1")
    record = RunRecord(run="job-1", created_at=ZERO, request=request, goal=GOAL)
    write_record(storage, record)
    read = read_record(storage)

    assert (read.run, read.created_at, read.goal) == (record.run, ZERO, GOAL)
    for action in (Submit(True, 1, ""), Submit(False, 0, "")):
        requests = [request_of_job(each, action, "job-1-0001") for each in (record, read)]
        assert requests[0] == requests[1]
        assert requests[1]["EnableManagedSpotTraining"] is action.is_spot
        assert requests[1]["ResourceConfig"]["InstanceType"] == GOAL.machines[action.machine].instance_type
        assert requests[1]["TrainingJobName"] == "job-1-0001"
        assert requests[1]["HyperParameters"] == request["HyperParameters"]
        assert ("MaxWaitTimeInSeconds" in requests[1]["StoppingCondition"]) is action.is_spot
    with pytest.raises(FileExistsError):
        write_record(storage, record)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"format": 2}', b"\xff", b'{"format": 1, "run": "x"}'])
def test_a_record_that_is_none(tmp_path, text):
    """It is refused with words."""
    with pytest.raises(SpecError, match="There is no run"):
        read_record(LocalStorage(tmp_path))
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(SpecError, match="can't be read"):
        read_record(LocalStorage(tmp_path))


def test_the_first_reason_of_a_stop_counts(tmp_path):
    """Of two supervisors one is right; what is no reason is none."""
    storage = LocalStorage(tmp_path)
    write_stop(storage, 3, "deadline")
    write_stop(storage, 3, "budget")
    storage.put("stop-0004.json", [b"torn"])
    storage.put("stop-0005.json", [b'{"reason": "whim"}'])
    assert read_stops(storage) == {3: "deadline"}


def test_names_and_numbers():
    """Only the run's own jobs are its jobs."""
    assert job_number("run", job_name("run", 12)) == 12
    for other in ("run", "run-12", "run-0012-x", "other-0001", "a-run-0001"):
        assert job_number("run", other) is None
