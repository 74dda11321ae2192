"""Facts are gathered through boto3 as they are, and what is refused is a fact as well."""

import copy
import io
import json
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber

from spotproof.checkpoint.manifest import Manifest, RankFiles, StoredFile, format_manifest
from spotproof.events import AttemptStarted, to_line
from spotproof.launch.preflight import Facts, look
from spotproof.launch.preflight.facts import Bucket, Caller, Checkpoints, Image, Missing, Objects, Role, Unseen
from spotproof.spec import JobSpec, parse_job_spec

NOW = datetime(2027, 1, 1, tzinfo=timezone.utc)
ROLE = "arn:aws:iam::123456789012:role/path/R"
FIELDS: dict[str, Any] = {
    "name": "job",
    "image_uri": "123456789012.dkr.ecr.us-west-2.amazonaws.com/a/job:1",
    "role": ROLE,
    "instance_types": ["ml.g5.xlarge", "ml.g5.2xlarge"],
    "use_spot_instances": True,
    "max_run": 60,
    "max_wait": 60,
    "checkpoint_s3_uri": "s3://bucket/ck",
    "output_path": "s3://bucket/out",
    "inputs": {"training": "s3://bucket/data/"},
}


class Account:
    """boto3's clients with stubbed answers; what is asked for and not stubbed fails."""

    def __init__(self, answers: Mapping[str, list[tuple[str, Any]]]) -> None:
        self.asked: list[str] = []
        self._clients: dict[str, Any] = {}
        self._stubs = []
        for name in ("sagemaker", "s3", "sts", "iam", "ecr@us-west-2", "service-quotas"):
            service, _, region = name.partition("@")
            client: Any = boto3.client(  # type: ignore[call-overload]
                service, region_name=region or "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
            )
            stub = Stubber(client)
            for operation, answer in answers.get(name, []):
                if isinstance(answer, str):
                    stub.add_client_error(operation, answer, "text", 403)
                else:
                    # botocore parses some answers in their place.
                    is_stream = isinstance(answer.get("Body"), StreamingBody)
                    stub.add_response(operation, answer if is_stream else copy.deepcopy(answer))
            stub.activate()
            self._clients[name] = client
            self._stubs.append(stub)

    def __call__(self, name: str) -> Any:
        self.asked.append(name)
        return self._clients[name]

    def assert_all_asked(self) -> None:
        for stub in self._stubs:
            stub.assert_no_pending_responses()


def body(data: bytes) -> StreamingBody:
    return StreamingBody(io.BytesIO(data), len(data))


def spec_of(**fields: Any) -> JobSpec:
    return parse_job_spec({**FIELDS, **fields})


TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}
ROLE_ANSWER = {
    "Role": {
        "Path": "/",
        "RoleName": "R",
        "RoleId": "A" * 20,
        "Arn": ROLE,
        "CreateDate": NOW,
        "AssumeRolePolicyDocument": json.dumps(TRUST),
    }
}
RUN = "0" * 32
MANIFEST = Manifest(
    step=120,
    run_id="run-1",
    attempt=1,
    ranks=(RankFiles(state=StoredFile(f"packs/{RUN}.1.state", 5), packs=(), tensors=()),),
    created_at=NOW,
)
STARTED = AttemptStarted(attempt=1, run_id="run-1", config={"job": "old-job-1"}, versions={})
OBJECTS = [
    {"Key": f"ck/{name}", "Size": 5}
    for name in (
        "step-0000000120.json",
        "step-0000000060.json",
        "events/attempt-0001.jsonl",
        f"packs/{RUN}.1.state",
    )
]
GOOD: dict[str, list[tuple[str, Any]]] = {
    "sts": [
        (
            "get_caller_identity",
            {"Account": "123456789012", "Arn": "arn:aws:sts::123456789012:assumed-role/Dev/me", "UserId": "x"},
        )
    ],
    "iam": [
        ("get_role", ROLE_ANSWER),
        (
            "simulate_principal_policy",
            {"EvaluationResults": [{"EvalActionName": "iam:PassRole", "EvalDecision": "implicitDeny"}]},
        ),
    ],
    "ecr@us-west-2": [("describe_images", {"imageDetails": [{"imageSizeInBytes": 5}]})],
    "s3": [
        ("head_bucket", {"BucketRegion": "eu-west-1"}),
        ("list_objects_v2", {"Contents": [{"Key": "data/a", "Size": 3}], "IsTruncated": True}),
        ("list_objects_v2", {"Contents": OBJECTS}),
        ("get_object", {"Body": body(to_line(STARTED).encode() + b'\n{"torn')}),
        ("get_object", {"Body": body(format_manifest(MANIFEST))}),
    ],
    "sagemaker": [
        (
            "list_training_jobs",
            {
                "TrainingJobSummaries": [
                    {
                        "TrainingJobName": name,
                        "TrainingJobArn": f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{name}",
                        "CreationTime": NOW,
                        "TrainingJobStatus": "InProgress",
                    }
                    for name in ("writes-there", "writes-above", "writes-beside", "writes-nothing")
                ]
            },
        ),
        *[
            (
                "describe_training_job",
                {
                    "TrainingJobName": "x",
                    "TrainingJobArn": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/x",
                    "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
                    "TrainingJobStatus": "InProgress",
                    "SecondaryStatus": "Training",
                    "StoppingCondition": {},
                    "CreationTime": NOW,
                    **({"CheckpointConfig": {"S3Uri": uri}} if uri else {}),
                },
            )
            for uri in ("s3://bucket/ck", "s3://bucket/", "s3://bucket/ck-2/", None)
        ],
    ],
    "service-quotas": [
        (
            "list_service_quotas",
            {
                "Quotas": [
                    {"QuotaName": "ml.g5.xlarge for spot training job usage", "Value": 2.0},
                    {"QuotaName": "ml.g5.2xlarge for training job usage", "Value": 9.0},
                ]
            },
        )
    ],
}


def look_at(answers: Mapping[str, list[tuple[str, Any]]], *, is_local: bool = False, **fields: Any) -> Facts:
    account = Account(answers)
    facts = look(spec_of(**fields), account, {}, is_local=is_local, now=NOW)
    account.assert_all_asked()
    return facts


def fresh(**changed: list[tuple[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """GOOD with bodies that have not been read."""
    s3 = list(GOOD["s3"])
    s3[3] = ("get_object", {"Body": body(to_line(STARTED).encode() + b'\n{"torn')})
    s3[4] = ("get_object", {"Body": body(format_manifest(MANIFEST))})
    return {**GOOD, "s3": s3, **changed}


def test_all_facts_of_a_job() -> None:
    """Each answer of AWS becomes the fact it is."""
    facts = look_at(fresh())

    assert facts.caller == Caller("123456789012", "arn:aws:sts::123456789012:assumed-role/Dev/me")
    assert facts.role == Role(trusts_sagemaker=True, may_be_passed=False)
    assert facts.image == Image(5)
    assert facts.buckets == {"bucket": Bucket("eu-west-1")}
    assert facts.inputs == {"training": Objects(1, 3, has_more=True)}
    assert facts.checkpoints == Checkpoints(
        num_objects=4, newest_step=120, run_id="run-1", job_name="old-job-1", saved_at=NOW
    )
    assert facts.writers == ("writes-there", "writes-above")
    assert facts.quota == {"ml.g5.xlarge": 2.0}
    assert facts.region == "eu-west-1"
    assert "ml.g5.xlarge" in facts.known_types


@pytest.mark.parametrize(
    ("name", "operation", "code", "fact", "expected"),
    [
        ("sts", "get_caller_identity", "AccessDenied", "caller", Unseen),
        ("iam", "get_role", "AccessDenied", "role", Unseen),
        ("iam", "get_role", "NoSuchEntity", "role", Missing),
        ("ecr@us-west-2", "describe_images", "ImageNotFoundException", "image", Missing),
        ("ecr@us-west-2", "describe_images", "AccessDeniedException", "image", Unseen),
        ("service-quotas", "list_service_quotas", "AccessDeniedException", "quota", Unseen),
        ("sagemaker", "list_training_jobs", "AccessDeniedException", "writers", Unseen),
    ],
)
def test_what_is_refused_is_a_fact(name: str, operation: str, code: str, fact: str, expected: type) -> None:
    """A service that has it not, or shows it not, keeps nothing else from being looked at."""
    answers = fresh(**{name: [(operation, code)]})
    if name == "sts":  # then there is nobody whose policies could be simulated
        answers["iam"] = [("get_role", ROLE_ANSWER)]

    facts = look_at(answers)

    assert isinstance(getattr(facts, fact), expected)
    assert isinstance(facts.buckets["bucket"], Bucket)


def test_a_damaged_manifest_and_an_empty_place() -> None:
    """What can't be read is said so; nothing there is nothing there."""
    s3 = fresh()["s3"]
    damaged = [*s3[:4], ("get_object", {"Body": body(b"{")})]
    facts = look_at(fresh(s3=damaged))
    assert isinstance(facts.checkpoints, Checkpoints)
    assert facts.checkpoints.newest_step == 120
    assert facts.checkpoints.damage

    for objects, why in ((OBJECTS[:3], "is missing"), ([*OBJECTS[:3], {**OBJECTS[3], "Size": 4}], "has 4 bytes of 5")):
        facts = look_at(fresh(s3=[*s3[:2], ("list_objects_v2", {"Contents": objects}), *fresh()["s3"][3:]]))
        assert isinstance(facts.checkpoints, Checkpoints)
        assert facts.checkpoints.newest_step == 120
        assert why in str(facts.checkpoints.damage)

    for answer in ({}, "NoSuchBucket"):
        empty = [*s3[:2], ("list_objects_v2", answer)]
        assert look_at(fresh(s3=empty)).checkpoints == Checkpoints(num_objects=0)


def test_a_place_with_very_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests come last in S3's order: they are asked for by themselves where not all is listed. A pack that is not
    among the first ones is not taken to be missing then."""
    monkeypatch.setattr(sys.modules[look.__module__], "_MAX_OBJECTS", 2)
    s3 = fresh()["s3"]
    first = [OBJECTS[2], {"Key": "ck/packs/another", "Size": 1}]
    listed = [("list_objects_v2", {"Contents": first}), ("list_objects_v2", {"Contents": OBJECTS[:2]})]

    found = look_at(fresh(s3=[*s3[:2], *listed, *s3[3:]])).checkpoints

    assert found == Checkpoints(num_objects=2, newest_step=120, run_id="run-1", job_name="old-job-1", saved_at=NOW)


def test_the_local_platform_is_not_asked_for_what_it_has_not() -> None:
    """No registry and no quotas; the rest is asked as on AWS."""
    facts = look_at({**fresh(), "ecr@us-west-2": [], "service-quotas": []}, is_local=True)

    assert isinstance(facts.image, Unseen)
    assert isinstance(facts.quota, Unseen)
    assert isinstance(facts.caller, Caller)


def test_the_program_s_text_is_looked_at(tmp_path: Path) -> None:
    """With a source_dir, without running anything."""
    (tmp_path / "train.py").write_text("raise SystemExit('run')\nSpotCheckpoint()\n")

    facts = look_at(fresh(), source_dir=str(tmp_path))

    assert facts.source is not None
    assert facts.source.evidence == ("train.py:2 SpotCheckpoint",)
