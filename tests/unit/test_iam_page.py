"""docs/iam.md names what the code calls, and no more."""

import ast
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from spotproof.launch.request import build_request
from spotproof.spec import read_job_spec

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "spotproof"
PAGE = (ROOT / "docs" / "iam.md").read_text()
POLICIES = {
    name: json.loads(text)["Statement"]
    for name, text in re.findall(r"<!-- policy: (\w+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
}
ROLES = {"role", "trust", "kms"}
"""Policies of others than whoever sits at the command line."""

SPECIAL = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:UploadFile": "s3:PutObject",
}
"""Actions that are not named as the operation. Source: Service Authorization Reference, Amazon S3."""
UNCHECKED = {"sts:GetCallerIdentity": "allowed to everyone", "s3:CreateBucket": "asked of a local server only"}
OBSTORE = {
    "put": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "get": {"s3:GetObject"},
    "get_range": {"s3:GetObject"},
    "head": {"s3:GetObject"},
    "list": {"s3:ListBucket"},
    "delete": {"s3:DeleteObject"},
}
NOT_CALLED = {
    "iam:PassRole": "CreateTrainingJob asks for it",
    "sagemaker:AddTags": "CreateTrainingJob with tags asks for it",
    "ecr:BatchCheckLayerAvailability": "the push of an engine",
    "ecr:BatchGetImage": "the push of an engine",
    "ecr:CompleteLayerUpload": "the push of an engine",
    "ecr:InitiateLayerUpload": "the push of an engine",
    "ecr:PutImage": "the push of an engine",
    "ecr:UploadLayerPart": "the push of an engine",
}
ANY_RESOURCE = {
    "sagemaker:ListTrainingJobs",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    "pricing:GetProducts",
    "servicequotas:ListServiceQuotas",
}
"""Actions that know no resource. Source: Service Authorization Reference."""


def as_list(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def actions_of(*names: str) -> set[str]:
    return {action for name in names for statement in POLICIES[name] for action in as_list(statement["Action"])}


def is_allowed(name: str, action: str, resource: str, **context: str) -> bool:
    """Whether a policy of the page allows *action* on *resource*: as IAM decides where nothing is denied."""
    for statement in POLICIES[name]:
        wanted = statement.get("Condition", {}).get("StringEquals", {})
        if (
            action in as_list(statement["Action"])
            and any(fnmatchcase(resource, pattern) for pattern in as_list(statement["Resource"]))
            and all(context.get(key.replace(":", "_")) == value for key, value in wanted.items())
        ):
            return True
    return False


def calls_in(folder: Path) -> Iterator[ast.Call]:
    for path in sorted(folder.rglob("*.py")):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def first_text(call: ast.Call) -> str | None:
    """Return a call's first argument if it is text; of an f-string, its beginning."""
    first = call.args[0] if call.args else None
    if isinstance(first, ast.JoinedStr) and first.values:
        first = first.values[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


@cache
def boto3_actions() -> set[str]:
    """Return the IAM actions of all that `launch`, the one room with boto3, calls."""
    session = botocore.session.get_session()
    known = set(session.get_available_services())
    calls = [
        (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), first_text(node))
        for node in calls_in(SOURCE / "launch")
    ]
    opened = {text.partition("@")[0] for _, text in calls if text is not None} & known
    called = {name for name, _ in calls} | {text for name, text in calls if name == "get_paginator" and text}
    found = set()
    for service in opened:
        model = session.get_service_model(service)
        prefix = model.signing_name
        found |= {f"{prefix}:{name}" for name in model.operation_names if xform_name(name) in called}
    if called & {"upload_file", "upload_fileobj", "create_transfer_manager"}:
        found |= {"s3:UploadFile", "s3:AbortMultipartUpload"}
    return {SPECIAL.get(action, action) for action in found} - UNCHECKED.keys()


def obstore_actions() -> set[str]:
    """Return the IAM actions of all that the storage calls."""
    called = {
        node.func.attr
        for node in calls_in(SOURCE / "storage")
        if isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "obstore"
    }
    assert {"put", "get", "list", "delete"} <= called
    return set().union(*(OBSTORE[name] for name in called))


def test_whoever_launches_may_do_what_the_code_calls() -> None:
    """Each call through boto3 is named in a policy for the command line."""
    needed = boto3_actions()
    assert {"sagemaker:CreateTrainingJob", "logs:GetLogEvents", "s3:PutObject"} <= needed
    assert needed <= actions_of(*(POLICIES.keys() - ROLES))


def test_nobody_may_do_what_is_not_called() -> None:
    """Each action for the command line is called, or has a reason to be there without."""
    given = actions_of(*(POLICIES.keys() - ROLES))
    called = boto3_actions() | obstore_actions()
    assert given <= called | NOT_CALLED.keys()
    assert not called & NOT_CALLED.keys()


def test_the_role_may_do_what_the_storage_calls() -> None:
    """A job that writes straight to S3 needs no more than the role's policy; nor do `checkpoints` and `prune`."""
    assert obstore_actions() <= actions_of("role")
    assert obstore_actions() <= actions_of("launch", "prune")


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"trust"}))
def test_policies_are_narrow(name: str) -> None:
    """No action has a wildcard, and none that knows resources is given on all of them."""
    for statement in POLICIES[name]:
        assert statement["Effect"] == "Allow"
        for action in as_list(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9]+:[A-Z]\w+", action)
            if "*" in as_list(statement["Resource"]):
                assert action in ANY_RESOURCE


def test_the_policies_fit_a_job_of_the_page(tmp_path: Path) -> None:
    """What the request for the page's job names, they allow; the same of another job they do not."""
    (fields,) = re.findall(r"```yaml\n(name: .*?)```", PAGE, re.DOTALL)
    file = tmp_path / "job.yaml"
    file.write_text(
        fields + "image_uri: digits\ninstance_type: ml.m5.large\nuse_spot_instances: true\nmax_run: 60\nmax_wait: 60\n"
    )
    name = "digits-20261127-120000-000"
    request = build_request(read_job_spec(file), job_name=name)
    job = "arn:aws:sagemaker:us-east-1:111122223333:training-job/"
    role, service = request["RoleArn"], "sagemaker.amazonaws.com"
    checkpoint = request["CheckpointConfig"]["S3Uri"].replace("s3://", "arn:aws:s3:::") + "step-0000000010.json"
    model = (
        request["OutputDataConfig"]["S3OutputPath"].replace("s3://", "arn:aws:s3:::") + f"/{name}/output/model.tar.gz"
    )
    log = "arn:aws:logs:us-east-1:111122223333:log-group:/aws/sagemaker/TrainingJobs:log-stream:"

    assert is_allowed("launch", "sagemaker:CreateTrainingJob", job + name)
    assert not is_allowed("launch", "sagemaker:StopTrainingJob", job + "faces-20261127-120000-000")
    assert is_allowed("launch", "iam:PassRole", role, iam_PassedToService=service)
    assert not is_allowed("launch", "iam:PassRole", role, iam_PassedToService="ec2.amazonaws.com")
    assert not is_allowed(
        "launch", "iam:PassRole", role.replace("SpotproofTraining", "Admin"), iam_PassedToService=service
    )
    assert is_allowed("launch", "logs:GetLogEvents", f"{log}{name}/algo-1-1795803363")
    assert not is_allowed("launch", "logs:GetLogEvents", f"{log}faces-20261127-120000-000/algo-1-1795803363")
    for action in ("s3:GetObject", "s3:PutObject"):
        assert is_allowed("launch", action, checkpoint)
        assert is_allowed("role", action, checkpoint)
        assert is_allowed("role", action, model)
        assert not is_allowed("role", action, checkpoint.replace("my-bucket", "other-bucket"))
    assert is_allowed("role", "s3:DeleteObject", checkpoint)
    assert not is_allowed("role", "s3:DeleteObject", model)
    assert is_allowed("role", "logs:PutLogEvents", f"{log}{name}/algo-1-1795803363")
