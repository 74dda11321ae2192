"""Whole Lightning trainings that write straight to S3: killed, cut off, superseded, and in the end the same."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import pytest
from outcomes import Outcome, Zygote, assert_same_outcome
from s3_proxy import S3Proxy

from spotproof.checkpoint import committed_steps, newest_verified, read_manifest, verify
from spotproof.checkpoint.journal import read_events, recorded_attempts
from spotproof.checkpoint.manifest import manifest_key
from spotproof.events import AttemptEnded, CheckpointCommitted, Resumed, SaveFailed
from spotproof.storage import open_storage

BUCKET = "s3-training"
SCENARIOS = {"plain": {"epochs": 2}, "two_workers": {"workers": 2, "val_check_interval": 4, "epochs": 2}}


@pytest.fixture
def environment(s3_server, monkeypatch):
    """What leads to the server, here and in the trainings."""
    env = s3_server.environment()
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", "us-east-1")
    if BUCKET not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    client.close()
    return env


@pytest.fixture
def dirpath(environment, tmp_path):
    """A prefix of its own."""
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Give the outcome of a scenario that wrote to a folder, without a kill; trained once."""
    outcomes = {}

    def outcome(name):
        if name not in outcomes:
            folder = tmp_path_factory.mktemp(name)
            assert zygote.train(folder, SCENARIOS[name]) == 0, log(folder)
            outcomes[name] = Outcome(folder)
        return outcomes[name]

    return outcome


def log(folder):
    return (folder / "log.txt").read_text()


def events(dirpath, kind):
    """Return what all attempts told of a kind."""
    storage = open_storage(dirpath)
    told = [event for attempt in recorded_attempts(storage) for event in read_events(storage, attempt)]
    return [event for event in told if isinstance(event, kind)]


def batches(folder):
    trace = folder / "trace.jsonl"
    return trace.read_text().count('["batch"') if trace.exists() else 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_kills_leave_no_trace(zygote, undisturbed, environment, dirpath, tmp_path, name):
    """Killed in a step, in a validation, and while a checkpoint is on its way: the outcome is the undisturbed one."""
    machine = {"env": environment, "dirpath": dirpath}
    kills = [("training_step", 5, True), ("validation_step", 11, True), ("on_train_batch_end", 16, False)]
    for point, step, settle in kills:
        kill = {"point": point, "step": step}
        assert zygote.train(tmp_path, SCENARIOS[name], kill=kill, settle=settle, **machine) == -9, log(tmp_path)
    assert zygote.train(tmp_path, SCENARIOS[name], **machine) == 0, log(tmp_path)

    assert_same_outcome(undisturbed(name), Outcome(tmp_path))
    resumed = [event.step for event in events(dirpath, Resumed)]
    assert resumed[0] == 3
    assert resumed[1] >= 9
    assert [event.outcome for event in events(dirpath, AttemptEnded)] == ["finished"]
    storage = open_storage(dirpath)
    for step in committed_steps(storage):
        verify(storage, read_manifest(storage, manifest_key(step)))
    assert not (tmp_path / "checkpoints").exists()


def test_a_server_that_goes_and_comes_back(zygote, undisturbed, s3_server, environment, dirpath, tmp_path):
    """Training goes on without its storage, with one warning, and ends with its last step saved and the same model."""
    proxy = S3Proxy(s3_server.url)
    proxy.fault = lambda method, path: "reset" if batches(tmp_path) >= 8 and proxy.faults["reset"] < 16 else None
    machine = {"env": {**environment, "AWS_ENDPOINT_URL_S3": proxy.url}, "dirpath": dirpath}

    assert zygote.train(tmp_path, SCENARIOS["plain"], settle=False, **machine) == 0, log(tmp_path)
    proxy.close()

    assert proxy.faults["reset"] == 16
    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))
    assert log(tmp_path).count("could not be written to") == 1
    assert "can be written to again" in log(tmp_path)
    assert events(dirpath, SaveFailed)
    assert events(dirpath, CheckpointCommitted)[-1].step == 22
    assert newest_verified(open_storage(dirpath)).step == 22


def test_a_training_without_its_bucket_does_not_begin(zygote, environment, tmp_path):
    """The error comes before the first batch, and says what is wrong."""
    machine = {"env": environment, "dirpath": "s3://no-such-bucket/run"}
    assert zygote.train(tmp_path, SCENARIOS["plain"], **machine) == 1
    assert "SpecError: There is no bucket no-such-bucket, so nothing can be kept" in log(tmp_path)
    assert batches(tmp_path) == 0


@pytest.mark.parametrize("kind", [pytest.param("folder", marks=pytest.mark.slow), "s3"])
def test_a_training_that_was_replaced_in_its_sleep_stops(zygote, undisturbed, request, tmp_path, kind):
    """Stopped in a step, replaced, woken: it ends with the error at its next save; the other's result is untouched."""
    machine = {"dirpath": str(tmp_path / "checkpoints"), "env": {}}
    if kind == "s3":
        machine = {"dirpath": request.getfixturevalue("dirpath"), "env": request.getfixturevalue("environment")}
    sleeper, other = tmp_path / "sleeper", tmp_path / "other"
    sleeper.mkdir()
    second = Zygote()
    codes = []

    def sleep():
        kill = {"point": "training_step", "step": 7, "signal": signal.SIGSTOP}
        codes.append(second.train(sleeper, SCENARIOS["plain"], kill=kill, **machine))

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    pid = wait_until_asleep(sleeper)
    try:
        assert zygote.train(other, SCENARIOS["plain"], **machine) == 0, log(other)
        storage = open_storage(machine["dirpath"])
        before = {entry.key: storage.get(entry.key) for entry in storage.list() if "attempt-0000" not in entry.key}
    finally:
        os.kill(pid, signal.SIGCONT)
        thread.join(60)
        second.close()

    assert codes == [1], log(sleeper)
    assert "CheckpointConflict: Attempt 1 writes to" in log(sleeper).strip().splitlines()[-1]
    assert batches(sleeper) == 10  # the save of step 9 met the newer attempt, beside the tenth batch
    assert {entry.key: storage.get(entry.key) for entry in storage.list() if "attempt-0000" not in entry.key} == before
    # What the two have done up to the sleep and from there on is what one would have done.
    whole = (sleeper / "trace.jsonl").read_text().splitlines()[:6] + (other / "trace.jsonl").read_text().splitlines()
    (other / "trace.jsonl").write_text("\n".join(whole) + "\n")
    assert_same_outcome(undisturbed("plain"), Outcome(other))


def wait_until_asleep(folder):
    """Return the process id of the training in *folder* once it is stopped."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            pid = int((folder / "pid").read_text())
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return pid
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    raise AssertionError("it never slept")


@pytest.mark.slow
def test_a_storage_that_hangs_does_not_keep_the_end_back(zygote, undisturbed, tmp_path):
    """Training ends with its result and says what is not saved; the newest checkpoint is that of the save before."""
    assert zygote.train(tmp_path, SCENARIOS["plain"], fault={"kind": "hangs at the end"}) == 0, log(tmp_path)

    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))
    assert "its last step, 22, could not be saved" in log(tmp_path)
    assert "The newest checkpoint is that of step 21" in log(tmp_path)
    assert newest_verified(open_storage(tmp_path / "checkpoints")).step == 21


def test_memory_is_that_of_one_copy(environment, dirpath):
    """Saves to S3 take one copy of the state and a few parts besides, a verified restore the state and a few ranges."""
    mebibytes = 256
    probe = [sys.executable, str(Path(__file__).with_name("memory_probe.py")), dirpath, str(mebibytes)]
    done = subprocess.run(probe, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout)
    assert mebibytes * 0.9 < peak["saving"] <= mebibytes * 1.15
    assert peak["reading"] <= mebibytes * 1.2
