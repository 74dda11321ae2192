"""The checks before a launch, each from facts alone: what is so, what may go wrong, what will, what can't be seen."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from spotproof.launch.preflight import Check, Facts, check_job, failed
from spotproof.launch.preflight.facts import Bucket, Caller, Checkpoints, Image, Missing, Objects, Role, Unseen
from spotproof.project import SourceLook
from spotproof.spec import Channel, Deadline, JobSpec

NOW = datetime(2027, 1, 1, tzinfo=timezone.utc)
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/job:1"
SPEC = JobSpec(
    name="job",
    image_uri=ECR,
    role="arn:aws:iam::123456789012:role/R",
    instance_type="ml.g5.xlarge",
    use_spot_instances=True,
    max_run=3600,
    max_wait=7200,
    inputs={"training": Channel(s3_uri="s3://data/set/")},
    output_path="s3://results/job",
    checkpoint_s3_uri="s3://results/checkpoints/",
    source_dir=Path(__file__).parent,
)
FACTS = Facts(
    now=NOW,
    is_local=False,
    region="eu-west-1",
    known_types=frozenset({"ml.g5.xlarge", "ml.g5.2xlarge"}),
    caller=Caller(account="123456789012", arn="arn:aws:iam::123456789012:user/me"),
    role=Role(trusts_sagemaker=True, may_be_passed=True),
    image=Image(size_bytes=4 * 10**9),
    buckets={"data": Bucket("eu-west-1"), "results": Bucket("eu-west-1")},
    inputs={"training": Objects(3, 10**6)},
    checkpoints=Checkpoints(num_objects=0),
    quota={"ml.g5.xlarge": 4.0},
    source=SourceLook(num_files=1, evidence=("train.py:5 SpotCheckpoint",), literal_directories=()),
)


def checks_of(spec: dict[str, Any] | None = None, **facts: Any) -> list[Check]:
    return check_job(JobSpec.model_validate({**dict(SPEC), **(spec or {})}), replace(FACTS, **facts))


def the_worst(checks: list[Check]) -> list[tuple[str, str]]:
    return [(check.subject, check.outcome) for check in checks if check.outcome != "ok"]


def test_a_job_that_lacks_nothing() -> None:
    """All is well, and all that was looked at is shown."""
    checks = checks_of()

    assert the_worst(checks) == []
    assert {"max_wait", "quota", "credentials", "role", "image_uri", "inputs.training", "checkpoint_s3_uri"} <= {
        check.subject for check in checks
    }
    assert failed(checks, is_strict=True) == []


@pytest.mark.parametrize(
    ("facts", "subject", "outcome", "text"),
    [
        ({"caller": Missing("no")}, "credentials", "unknown", "no"),
        (
            {"caller": Unseen("who you are: Unable to locate credentials")},
            "credentials",
            "error",
            "none that AWS takes",
        ),
        ({"caller": Caller("210987654321", "arn:x")}, "role", "error", "belongs to account 123456789012"),
        ({"role": Missing("not found")}, "role", "error", "not found"),
        ({"role": Unseen("AccessDenied")}, "role", "unknown", "AccessDenied"),
        ({"role": Role(False, True)}, "role", "error", "trust policy"),
        ({"role": Role(True, False)}, "role", "warning", "may not pass it"),
        ({"role": Role(True, Unseen("denied"))}, "iam:PassRole", "unknown", "denied"),
        ({"image": Missing("no such tag")}, "image_uri", "error", "no such tag"),
        ({"image": Unseen("AccessDenied")}, "image_uri", "unknown", "AccessDenied"),
        ({"region": "us-east-1"}, "image_uri", "error", "it is in eu-west-1, and the job in us-east-1"),
        (
            {"buckets": {"data": Missing("x"), "results": Bucket("eu-west-1")}},
            "inputs.training",
            "error",
            "no bucket data",
        ),
        (
            {"buckets": {"data": Bucket("us-east-1"), "results": Bucket("eu-west-1")}},
            "inputs.training",
            "error",
            "us-east-1",
        ),
        ({"buckets": {"data": Unseen("403"), "results": Bucket(None)}}, "inputs.training", "unknown", "403"),
        ({"inputs": {"training": Objects(0, 0)}}, "inputs.training", "error", "nothing lies below"),
        ({"inputs": {"training": Unseen("403")}}, "inputs.training", "unknown", "403"),
        ({"inputs": {"training": Objects(9, 40 * 10**9)}}, "inputs.training", "warning", "a disk of 30 GB"),
        ({"quota": {"ml.g5.xlarge": 0.0}}, "quota", "error", "for spot training job usage: 0, and the job needs 1"),
        ({"quota": {}}, "quota", "unknown", "lists no quota"),
        ({"quota": Unseen("not yours")}, "quota", "unknown", "not yours"),
        ({"known_types": frozenset({"ml.g5.2xlarge"})}, "instance_type", "warning", "botocore"),
        ({"writers": ("other-1",)}, "checkpoint_s3_uri", "error", "other-1 is running and writes there"),
        ({"writers": Unseen("denied")}, "checkpoint_s3_uri", "unknown", "denied"),
        ({"checkpoints": Unseen("403")}, "checkpoint_s3_uri", "unknown", "403"),
        ({"checkpoints": Checkpoints(num_objects=3)}, "checkpoint_s3_uri", "warning", "no checkpoint of Spotproof"),
        (
            {
                "checkpoints": Checkpoints(
                    num_objects=3, newest_step=120, run_id="abcdefghij", job_name="old-1", saved_at=NOW
                )
            },
            "checkpoint_s3_uri",
            "warning",
            "up to step 120 of job old-1 (run abcdefgh), saved 2027-01-01 00:00 UTC: the job will go on from there",
        ),
        (
            {"checkpoints": Checkpoints(num_objects=3, newest_step=120, damage="cut short")},
            "checkpoint_s3_uri",
            "warning",
            "cut short",
        ),
        ({"source": SourceLook(2, (), ())}, "checkpoints", "warning", "each reclaim would lose everything"),
        ({"source": None}, "checkpoints", "unknown", "in the image"),
    ],
)
def test_each_fact_has_its_check(facts: dict[str, Any], subject: str, outcome: str, text: str) -> None:
    """One thing that is not as it should be gives one check that says so; the rest stays well."""
    checks = checks_of(**facts)
    found = [check for check in checks if check.subject == subject and check.outcome == outcome and text in check.text]

    assert found, the_worst(checks)
    assert all(check.do for check in checks if check.outcome in ("warning", "error"))


FSX = {
    "file_system_id": "fs-0123456789abcdef0",
    "file_system_type": "FSxLustre",
    "directory_path": "/",
    "file_system_access_mode": "rw",
}


OWN_REGISTRY: dict[str, Any] = {
    "training_repository_access_mode": "Vpc",
    "subnets": ("subnet-1",),
    "security_group_ids": ("sg-1",),
}


@pytest.mark.parametrize(
    ("spec", "subject", "outcome", "text"),
    [
        ({"max_wait": 3600}, "max_wait", "warning", "is max_run"),
        ({"use_spot_instances": False, "max_wait": None}, "max_run", "ok", "on demand"),
        ({"deadline": Deadline(at=NOW - timedelta(hours=1))}, "deadline", "error", "has passed"),
        ({"deadline": Deadline(after_seconds=3600)}, "deadline", "warning", "the deadline is in 1 h"),
        ({"deadline": Deadline(after_seconds=36000)}, "deadline", "ok", "in 10 h"),
        ({"image_uri": "job:latest"}, "image_uri", "warning", "no image in ECR"),
        ({"image_uri": "job:latest", **OWN_REGISTRY}, "image_uri", "unknown", "registry in your VPC"),
        ({"checkpoint_s3_uri": "s3://results/ck"}, "checkpoint_s3_uri", "ok", "run-10"),
        ({"instance_types": ("ml.g5.xlarge", "ml.g5.3xlarge")}, "instance_type", "warning", "Did you mean"),
        ({"hyperparameters": {"dir": "/opt/ml/checkpoints"}, "source_dir": None}, "checkpoints", "ok", "dir names"),
        ({"entrypoint": ("train.py",)}, "entrypoint", "warning", "train.py is not in"),
        (
            {"inputs": {"a": Channel(s3_uri="s3://data/set", compression="Gzip")}},
            "inputs.a",
            "warning",
            "for Pipe mode",
        ),
    ],
)
def test_each_word_of_the_job_has_its_check(spec: dict[str, Any], subject: str, outcome: str, text: str) -> None:
    """What the job itself says may be unwise."""
    checks = checks_of(spec, image=Unseen("in no ECR registry")) if "image_uri" in spec else checks_of(spec)

    assert any(c.subject == subject and c.outcome == outcome and text in f"{c.text} {c.do}" for c in checks), checks


def test_file_systems_have_their_peculiarities() -> None:
    """What is written outlives a reclaim; FSx needs its mount name; one subnet is one zone."""
    network = {"subnets": ("subnet-1",), "security_group_ids": ("sg-1",)}
    texts = [
        check.text for check in checks_of({"inputs": {"a": Channel(**FSX)}, **network}) if check.outcome == "warning"
    ]

    assert len(texts) == 3
    assert any("stays there after a reclaim" in text for text in texts)
    assert any("mount name" in text for text in texts)
    assert any("one subnet is one zone" in text for text in texts)

    two = {"subnets": ("subnet-1", "subnet-2"), "security_group_ids": ("sg-1",)}
    assert any("2 subnets" in check.text for check in checks_of({"inputs": {"a": Channel(**FSX)}, **two}))


def test_warnings_count_only_when_strict() -> None:
    """An error always keeps a job from being launched; what can't be seen never does."""
    checks = [Check("a", outcome, "", "") for outcome in ("ok", "warning", "error", "unknown")]  # type: ignore[arg-type]

    assert [check.outcome for check in failed(checks, is_strict=False)] == ["error"]
    assert [check.outcome for check in failed(checks, is_strict=True)] == ["warning", "error"]


def test_the_local_platform_makes_buckets_and_takes_any_role() -> None:
    """What AWS would refuse is no mistake here."""
    checks = checks_of(
        is_local=True,
        caller=Caller("999999999999", "arn:x"),
        buckets={"data": Bucket("us-east-1"), "results": Missing("x")},
        region="eu-west-1",
    )

    assert [check for check in checks if check.outcome == "error"] == []
    assert any("will be made" in check.text for check in checks)


def test_checkpoints_elsewhere_than_the_program_writes() -> None:
    """A program that spells out the default folder writes past another checkpoint_local_path."""
    look = SourceLook(1, ("train.py:3 /opt/ml/checkpoints",), ("train.py:3",))

    assert ("checkpoint_local_path", "warning") in the_worst(
        checks_of({"checkpoint_local_path": "/opt/ml/ck"}, source=look)
    )
    assert the_worst(checks_of(source=look)) == []
