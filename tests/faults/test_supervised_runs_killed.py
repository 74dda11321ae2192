"""A supervised run on the local SageMaker: spot dries up, supervisors die, money runs out; it ends as it should."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from local_rig import open_rig, statuses
from supervisor_process import supervise

import spotproof
from spotproof.checkpoint.choose import newest_verified
from spotproof.launch import TrainingService, build_request
from spotproof.local import Image
from spotproof.spec import parse_job_spec
from spotproof.storage import open_storage
from spotproof.supervise import (
    Goal,
    JobWatcher,
    Looked,
    Machine,
    RunRecord,
    build_view,
    read_record,
    write_record,
)

COUNTER = Path(__file__).parents[1] / "e2e" / "counter"
STEPS = 120
WORK_SECONDS = 5.5


def final_value():
    """What an undisturbed training ends with."""
    value = 1
    for step in range(1, STEPS + 1):
        value = (value * 6364136223846793005 + step) % 2**128
    return str(value)


@pytest.fixture
def open_run(tmp_path, s3_server, monkeypatch):
    """Open a platform on which spot is reclaimed after two seconds of training, and does not come back."""

    @contextmanager
    def open_it(*, deadline_seconds=None, max_cost_usd=None, reclaim="at:2s@away=1h", machines=None, steps=STEPS):
        with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", reclaim=reclaim) as rig:
            for name, value in rig.platform.environment().items():
                monkeypatch.setenv(name, value)
            rig.platform._images["counter"] = Image(COUNTER, [sys.executable, "-m", "spotproof.container", "train.py"])
            spec = parse_job_spec(
                {
                    "name": "run",
                    "image_uri": "counter",
                    "role": "arn:aws:iam::123456789012:role/Train",
                    "instance_type": "ml.m5.large",
                    "use_spot_instances": True,
                    "max_run": 600,
                    "max_wait": 1200,
                    "checkpoint_s3_uri": f"s3://{rig.bucket}/run/ck/",
                    "output_path": f"s3://{rig.bucket}/run/out",
                    "hyperparameters": {"steps": steps},
                }
            )
            request = build_request(spec, job_name="run")
            place = f"s3://{rig.bucket}/run/supervision"

            def begin():
                now = datetime.now(timezone.utc)
                goal = Goal(
                    machines=machines or (Machine(instance_type="ml.m5.large"),),
                    deadline_at=now + timedelta(seconds=deadline_seconds) if deadline_seconds else None,
                    max_cost_usd=max_cost_usd,
                    work_seconds=WORK_SECONDS,
                )
                write_record(open_storage(place), RunRecord(run="run", created_at=now, request=request, goal=goal))

            yield rig, place, begin

    return open_it


def jobs_of(rig):
    names = rig.sagemaker.list_training_jobs(NameContains="run-")["TrainingJobSummaries"]
    return [rig.describe(each["TrainingJobName"]) for each in sorted(names, key=lambda job: job["TrainingJobName"])]


def model_of(rig, job):
    return rig.unpack(f"run/out/{job['TrainingJobName']}/output/model.tar.gz")["model.txt"]


def check_one_at_a_time(jobs):
    for before, after in pairwise(jobs):
        assert before["TrainingEndTime"] <= after["CreationTime"]


@pytest.mark.timeout(120)
def test_spot_dries_up(open_run):
    """A supervisor sees the reclaim and is killed. The next one goes on demand when the net says so, from the
    checkpoint that spot has left, is in time, and the run ends with the model of an undisturbed one."""
    with open_run(deadline_seconds=16) as (rig, place, begin):
        process = start_supervisor(place)
        lines = [process.stdout.readline()]
        begin()
        while not any("Interrupted" in statuses(job) for job in jobs_of(rig)):
            lines.append(process.stdout.readline())
            assert lines[-1], f"it ended: {lines}, {[statuses(job) for job in jobs_of(rig)]}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        end = supervise(place)

        jobs = jobs_of(rig)
        assert end.outcome == "completed"
        assert sum(line.startswith("submit") for line in lines) == 1
        assert [job["EnableManagedSpotTraining"] for job in jobs] == [True, False]
        assert [job["TrainingJobStatus"] for job in jobs] == ["Stopped", "Completed"]
        check_one_at_a_time(jobs)
        assert jobs[1]["TrainingEndTime"] <= read_record(open_storage(place)).goal.deadline_at
        assert model_of(rig, jobs[1]) == final_value()
        first = next(line for line in rig.lines("run-0002") if "step=" in line)
        assert not first.endswith("step=0"), "it began anew"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [random.randrange(2**32) for _ in range(6)], ids=range(6))
def test_supervisors_die_and_meet(open_run, seed):
    """SIGKILL after any line that it has printed, and two at once: never two live jobs, and the right end."""
    print("seed", seed)
    chance = random.Random(seed)
    with open_run(deadline_seconds=20) as (rig, place, begin):
        begin()
        num_killed, outcomes = 0, []
        while not outcomes:
            pair = [start_supervisor(place) for _ in range(chance.choice((1, 2)))]
            num_lines = chance.randrange(1, 15)
            lines = [line for _, line in zip(range(num_lines), pair[0].stdout, strict=False)]
            if num_killed < 5:
                for process in pair:
                    process.send_signal(signal.SIGKILL)
                num_killed += 1
            for process in pair:
                lines += process.stdout.readlines()
                process.wait(timeout=60)
                process.stdout.close()
            outcomes = [line.split()[-1] for line in lines if line.startswith("end")]

        jobs = jobs_of(rig)
        assert num_killed >= 1
        assert set(outcomes) == {"completed"}
        check_one_at_a_time(jobs)
        assert model_of(rig, jobs[-1]) == final_value()


def start_supervisor(place):
    environment = {**os.environ, "PYTHONPATH": str(Path(spotproof.__file__).parents[1])}
    program = str(Path(__file__).with_name("supervisor_process.py"))
    return subprocess.Popen(
        [sys.executable, program, place], stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
    )


def test_the_money_runs_out(open_run):
    """It is stopped before it costs more, and what it has computed is in S3."""
    price = Machine(instance_type="ml.m5.large", spot_usd_per_hour=1080.0, on_demand_usd_per_hour=3600.0)
    with open_run(max_cost_usd=2.5, reclaim="none", machines=(price,), steps=100_000) as (rig, place, begin):
        begin()
        end = supervise(place)

        (job,) = jobs_of(rig)
        assert end.outcome == "out of money"
        assert job["TrainingJobStatus"] == "Stopped"
        assert 0 < job["BillableTimeInSeconds"] * 3600 / 3600 <= 2.5
        saved = newest_verified(open_storage(f"s3://{rig.bucket}/run/ck"))
        steps = [int(line.rpartition("step=")[2]) for line in rig.lines("run-0001") if "step=" in line]
        assert saved is not None
        assert saved.step >= steps[-1] - 5  # it saves each fifth


def test_stopped_by_hand(open_run):
    """Who stops the run's job means it: the supervisor does not submit another."""
    with open_run(deadline_seconds=60, reclaim="none", steps=100_000) as (rig, place, begin):
        begin()
        stopped = []

        def stop_once(event):
            if not stopped and isinstance(event, Looked) and event.look.description["SecondaryStatus"] == "Training":
                rig.sagemaker.stop_training_job(TrainingJobName="run-0001")
                stopped.append(event)

        assert supervise(place, stop_once).outcome == "stopped"
        assert len(jobs_of(rig)) == 1


@pytest.mark.slow
def test_copying_that_stops_is_told(tmp_path, s3_server, monkeypatch):
    """The sync agent stops for good after some uploads, the job trains on: a warning, while the log goes on."""
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", sync_faults="stall:30") as rig:
        for name, value in rig.platform.environment().items():
            monkeypatch.setenv(name, value)
        rig.platform._images["counter"] = Image(COUNTER, [sys.executable, "-m", "spotproof.container", "train.py"])
        rig.sagemaker.create_training_job(**rig.request("j", uri="counter", HyperParameters={"steps": "100000"}))
        watcher = JobWatcher(TrainingService(), "j", open_storage)
        kinds = []
        while "no-checkpoint" not in kinds:
            look = watcher.look(datetime.now(timezone.utc), is_thorough=True)
            assert look.description["TrainingJobStatus"] == "InProgress"
            kinds = [alarm.kind for alarm in build_view(look).alarms]
            time.sleep(0.2)
        assert kinds == ["no-checkpoint"]
        rig.sagemaker.stop_training_job(TrainingJobName="j")
        rig.wait("j")
