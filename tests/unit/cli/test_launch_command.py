"""`spotproof launch`, `plan` and `rehearse` read one job.yaml alike, and refuse a wrong one before they ask anybody."""

import json
from pathlib import Path

import pytest

from spotproof.cli import run

JOB = """\
name: job
image_uri: image
role: arn:aws:iam::123456789012:role/R
instance_type: ml.m5.large
use_spot_instances: true
max_run: 60
max_wait: 60
checkpoint_s3_uri: s3://bucket/checkpoints
output_path: s3://bucket/output
inputs: {training: s3://bucket/data/}
source_dir: .
entrypoint: train.py
profiles:
  rehearsal: {inputs: {training: data}}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job, and an AWS that nobody can reach."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "train.py").touch()
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert run(argv) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "command", [["launch"], ["rehearse"], ["plan", "--work", "1h", "--deadline", "2h"], ["upload"]]
)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "max_run=0"], "--set max_run: 0 seconds are out of range"),
        (["--set", "max_wait=30"], "less than max_run"),
        (["--profile", "none"], "has no profile 'none'"),
        (["--set", "max_runn=1"], "Did you mean 'max_run'?"),
    ],
)
def test_one_meaning_everywhere(
    capsys: pytest.CaptureFixture[str], job: str, command: list[str], arguments: list[str], expected: str
) -> None:
    """--set and --profile are the same words in each command that reads a job."""
    assert expected in refusal(capsys, command[0], job, *command[1:], *arguments)


def test_options_of_the_rehearsal_need_it(capsys: pytest.CaptureFixture[str], job: str) -> None:
    """They would do nothing."""
    assert "Add --rehearse" in refusal(capsys, "launch", job, "--reclaim", "step:3")
    assert "Add --rehearse" in refusal(capsys, "launch", job, "--rehearse-set", "steps=3")


def test_a_rehearsal_needs_local_data(capsys: pytest.CaptureFixture[str], job: str, tmp_path: Path) -> None:
    """The profile `rehearsal` may give it, and so may an option; it is looked for before anybody is asked."""
    assert "'data' does not exist" in refusal(capsys, "launch", job, "--rehearse")

    Path(job).write_text(JOB.replace("  rehearsal: {inputs: {training: data}}", "  other: {}"))
    assert "--rehearse-set inputs.training=FOLDER" in refusal(capsys, "launch", job, "--rehearse")


def test_upload_needs_a_place_or_a_job(capsys: pytest.CaptureFixture[str], job: str, tmp_path: Path) -> None:
    """A folder needs a place, a job local inputs, a place the form of one, and what is not there is said so."""
    assert "Where to is missing" in refusal(capsys, "upload", str(tmp_path))
    assert "no local inputs" in refusal(capsys, "upload", job)
    assert "is no S3 place" in refusal(capsys, "upload", str(tmp_path), "bucket/x")
    assert "no file or folder" in refusal(capsys, "upload", str(tmp_path / "none"), "s3://bucket/x")
    assert "change a job" in refusal(capsys, "upload", str(tmp_path), "s3://bucket/x", "--set", "max_run=3")


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """To stdout, or to a file."""
    capsys.readouterr()
    assert run(["schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["properties"]["max_wait"]
    assert run(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text() == printed
    assert "can't be written" in refusal(capsys, "schema", "-o", str(tmp_path / "none" / "s.json"))
