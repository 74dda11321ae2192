"""The shell around boto3: waiting, and the service's errors in our words."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from spotproof.errors import LaunchError
from spotproof.launch import TrainingService

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> TrainingService:
    """A service whose endpoint nobody listens on; what it answers is stubbed."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return TrainingService(endpoint="http://127.0.0.1:9", s3_endpoint="http://127.0.0.1:9")


def description(status: str, transitions: list[str]) -> dict[str, Any]:
    return {
        "TrainingJobName": "j",
        "TrainingJobArn": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/j",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
        "TrainingJobStatus": status,
        "SecondaryStatus": transitions[-1],
        "StoppingCondition": {},
        "CreationTime": AT,
        "SecondaryStatusTransitions": [{"Status": name, "StartTime": AT} for name in transitions],
    }


def test_wait_tells_each_change_once(service: TrainingService) -> None:
    """All transitions are told, in order and once, also those that came between two looks."""
    seen: list[str] = []
    polls: list[str] = []
    with Stubber(service._sagemaker) as stub:
        for answer in [
            description("InProgress", ["Starting"]),
            description("InProgress", ["Starting"]),
            description("InProgress", ["Starting", "Downloading", "Training", "Interrupted", "Starting"]),
            description("Failed", ["Starting", "Downloading", "Training", "Interrupted", "Starting", "Failed"]),
        ]:
            stub.add_response("describe_training_job", answer, {"TrainingJobName": "j"})
        last = service.wait(
            "j",
            on_change=lambda transition: seen.append(transition["Status"]),
            on_poll=lambda answer: polls.append(answer["TrainingJobStatus"]),
            poll_seconds=0,
        )

    assert seen == ["Starting", "Downloading", "Training", "Interrupted", "Starting", "Failed"]
    assert polls == ["InProgress", "InProgress", "InProgress", "Failed"]
    assert last["TrainingJobStatus"] == "Failed"


def test_refusal_carries_the_services_text(service: TrainingService) -> None:
    """What the service says reaches the user, with code and remedy."""
    with Stubber(service._sagemaker) as stub:
        stub.add_client_error("create_training_job", "ResourceLimitExceeded", "The limit is 0 Instances.")
        with pytest.raises(LaunchError) as caught:
            service.submit(
                {
                    "TrainingJobName": "j",
                    "RoleArn": "arn:aws:iam::123456789012:role/R",
                    "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
                }
            )

    assert "'j'" in str(caught.value)
    assert "ResourceLimitExceeded: The limit is 0 Instances." in str(caught.value)
    assert "quota" in caught.value.do
    assert caught.value.exit_code == 3


def test_service_that_does_not_answer(service: TrainingService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listening is said with the URL and what to do; it is no traceback."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(LaunchError, match=r"127\.0\.0\.1:9.*spotproof serve"):
        service.describe("j")


def test_impossible_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is no URL is refused when the service is opened."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(LaunchError, match="endpoint"):
        TrainingService(endpoint="not a url")


def test_no_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a region the remedy names the variable."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(LaunchError, match="AWS_DEFAULT_REGION"):
        TrainingService()
