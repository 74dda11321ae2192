"""`spotproof launch` and `upload` as a user types them: at the local SageMaker, and on AWS where there is an account.

The same functions run at both places. On AWS they need, besides credentials, the variables SPOTPROOF_TEST_BUCKET,
SPOTPROOF_TEST_ROLE and SPOTPROOF_TEST_IMAGE (an image of tests/e2e/counter): `pytest -m aws tests/e2e/test_launch.py`.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from counter_job import COUNTER, JOB, SOURCE

ACCOUNT = ("SPOTPROOF_TEST_BUCKET", "SPOTPROOF_TEST_ROLE", "SPOTPROOF_TEST_IMAGE")


@dataclass
class Place:
    """Where jobs are launched, and a folder with a job."""

    folder: Path
    environment: dict[str, str]
    option: str
    bucket: str

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "spotproof", *arguments]
        environment = {**self.environment, **variables}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=1500, env=environment, cwd=self.folder, check=False
        )

    def launch(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        options = [self.option] if self.option == "--local" else []
        return self.run("launch", "job.yaml", *options, *arguments, **variables)

    def json(self, *arguments: str) -> Any:
        result = self.launch(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


def write_job(folder: Path, bucket: str, *, image: str, role: str) -> None:
    text = JOB.format(source=COUNTER).replace("counter-bucket", bucket)
    text = text.replace("run/checkpoints", f"run-{uuid.uuid4().hex[:8]}/checkpoints").replace("counter:latest", image)
    text = text.replace("arn:aws:iam::123456789012:role/Train", role)
    text += "profiles:\n  short: {hyperparameters: {steps: 7}}\n"
    (folder / "job.yaml").write_text(text)
    (folder / "data.txt").write_text("data")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running local SageMaker; what its clients' environment is."""
    folder = tmp_path_factory.mktemp("server")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {**kept, "PYTHONPATH": SOURCE, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "120"}
    command = [sys.executable, "-m", "spotproof", "serve", "--port", "0"]
    image = f"counter:latest={COUNTER}:python -m spotproof.container train.py"
    with subprocess.Popen([*command, "--image", image], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            yield environment
        finally:
            process.terminate()


@pytest.fixture(params=["local", pytest.param("aws", marks=pytest.mark.aws)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "aws":
        missing = [name for name in ACCOUNT if not os.environ.get(name)]
        if missing:
            pytest.skip(f"not set: {', '.join(missing)}")
        bucket, role, image = (os.environ[name] for name in ACCOUNT)
        write_job(tmp_path, bucket, image=image, role=role)
        return Place(tmp_path, {**os.environ, "PYTHONPATH": SOURCE, "COLUMNS": "120"}, "--aws", bucket)
    bucket = f"launch-{uuid.uuid4().hex[:8]}"
    write_job(tmp_path, bucket, image="counter:latest", role="arn:aws:iam::123456789012:role/Train")
    return Place(tmp_path, request.getfixturevalue("server"), "--local", bucket)


def jobs(place: Place) -> list[str]:
    options = [] if place.option == "--local" else [place.option]
    return [job["TrainingJobName"] for job in json.loads(place.run("list", *options, "--json").stdout)]


def test_dry_run_shows_all_and_starts_nothing(place: Place) -> None:
    """Checks and request, with profile and --set in it; no job, no upload, and for people a table."""
    before = jobs(place)

    found = place.json("--dry-run", "--profile", "short", "--set", "max_run=300", "--set", "tags.team=x")
    shown = place.launch("--dry-run")

    assert {check["outcome"] for check in found["checks"]} <= {"ok", "unknown"}
    assert found["request"]["HyperParameters"] == {"steps": "7"}
    assert found["request"]["StoppingCondition"]["MaxRuntimeInSeconds"] == 300
    assert found["request"]["Tags"] == [{"Key": "team", "Value": "x"}]
    data = found["request"]["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert data.startswith(f"s3://{place.bucket}/run/output/inputs/training/")
    assert shown.returncode == 0
    assert "SM_CHECKPOINT_DIR" in shown.stdout
    assert '"CheckpointConfig"' in shown.stdout
    assert jobs(place) == before


def test_a_job_is_launched_and_its_place_is_known_as_used(place: Place) -> None:
    """It ends Completed; another launch there says whose checkpoints it would go on from, and --strict refuses it."""
    launched = place.launch("--wait", "--json")
    assert launched.returncode == 0, launched.stderr
    assert json.loads(launched.stdout)["status"] == "Completed"
    assert "1 file uploaded" in launched.stderr

    again = place.json("--dry-run")
    warning = next(check for check in again["checks"] if check["outcome"] == "warning")
    refused = place.launch("--strict")

    assert warning["subject"] == "checkpoint_s3_uri"
    assert "up to step 40" in warning["text"]
    assert refused.returncode == 2
    assert "is not launched" in refused.stderr
    assert "checkpoint_s3_uri" in refused.stderr


def test_two_jobs_at_one_place_are_refused(place: Place) -> None:
    """While one runs, another that writes to its checkpoints is an error, before anything is uploaded."""
    first = place.json("--set", "hyperparameters.steps=100000")["job_name"]
    options = [] if place.option == "--local" else [place.option]
    try:
        second = place.launch()
    finally:
        place.run("stop", first, *options)

    assert second.returncode == 2
    assert f"{first} is running and writes there" in " ".join(second.stderr.split())


def test_what_can_not_work_is_refused_before_it_costs(place: Place) -> None:
    """Data that is not there, a bucket that is not, a deadline that has passed: exit 2, with the reason, and no job."""
    if place.option == "--local":
        place.run("upload", "data.txt", f"s3://{place.bucket}/present/", "--local")  # so that the bucket is there
    before = jobs(place)

    for change, expected in {
        f"inputs.training=s3://{place.bucket}/nothing/here/": "nothing lies below",
        "inputs.training=s3://no-such-bucket-of-anyone-0a1b2c/x/": "no bucket",
        "deadline=2020-01-01T00:00:00Z": "is over",
    }.items():
        result = place.launch("--set", change)

        assert result.returncode == 2, result.stdout
        assert expected in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
    assert jobs(place) == before


def test_a_program_that_does_not_resume_is_not_launched(place: Place) -> None:
    """--rehearse kills it twice: a job with a wrong state after the resume exits 7, and none is submitted."""
    before = jobs(place)

    result = place.launch(
        "--rehearse",
        "--reclaim",
        "step:13,step:26",
        "--set",
        "mutant=forget",
        "--rehearse-set",
        "mirrored_after=11",
    )

    assert result.returncode == 7, result.stderr
    assert "model/value" in result.stderr
    assert jobs(place) == before


@pytest.mark.slow
def test_a_program_that_resumes_is_launched_after_the_rehearsal(place: Place) -> None:
    """Only once it has ended identical is anything uploaded."""
    result = place.launch("--rehearse", "--reclaim", "step:13,step:26", "--rehearse-set", "mirrored_after=11", "--json")

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["job_name"] in jobs(place)
    assert result.stderr.index("identical") < result.stderr.index("1 file uploaded")


def test_data_is_uploaded_once(place: Place) -> None:
    """upload job.yaml brings the inputs to where launch finds them; a path goes where it is told."""
    option = [place.option] if place.option == "--local" else []
    uploaded = place.run("upload", "job.yaml", *option, "--json")
    assert uploaded.returncode == 0, uploaded.stderr
    first = json.loads(uploaded.stdout)[0]
    again = json.loads(place.run("upload", "job.yaml", *option, "--json").stdout)[0]
    request = place.json("--dry-run")["request"]

    assert (first["num_uploaded"], again["num_uploaded"], again["num_present"]) == (1, 0, 1)
    assert request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == first["s3_uri"]

    folder = place.run("upload", ".", f"s3://{place.bucket}/folder", *option)
    assert folder.returncode == 0, folder.stderr
    assert "were there" in folder.stdout
    (place.folder / "data.txt").unlink()
    stale = place.run("upload", ".", f"s3://{place.bucket}/folder", *option)
    assert "also holds what is not in . (1): data.txt" in " ".join(stale.stderr.split())
