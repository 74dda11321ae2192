"""Gather the facts through boto3. A shell: whatever can't be seen is said to be so, and keeps nothing else from it."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from spotproof.checkpoint.choose import check_listed
from spotproof.checkpoint.manifest import MANIFEST_REGEX, manifest_key, parse_manifest
from spotproof.errors import CheckpointDamaged, ResumeMismatch
from spotproof.events import EVENT_FILE_REGEX, AttemptStarted, parse_events
from spotproof.launch.local_files import LocalFiles
from spotproof.launch.preflight.ecr import parse_ecr_uri
from spotproof.launch.preflight.facts import Bucket, Caller, Checkpoints, Facts, Image, Missing, Objects, Role, Unseen
from spotproof.project import look_at_source
from spotproof.spec import Channel, JobSpec, as_folder, split_s3_uri

__all__ = ["look"]

T = TypeVar("T")
Clients = Callable[[str], Any]
"""From a service's name to boto3's client."""

_MISSING = frozenset(
    {"404", "NoSuchBucket", "NoSuchEntity", "RepositoryNotFoundException", "ImageNotFoundException", "NotFound"}
)
_MAX_OBJECTS = 10_000
_MAX_JOBS = 50
_HEAD_BYTES = 2**16
_NO_REGISTRY = "the local platform pulls no image"
_NO_QUOTAS = "the local platform has no quotas"


def look(spec: JobSpec, clients: Clients, files: Mapping[str, LocalFiles], *, is_local: bool, now: datetime) -> Facts:
    """Return what can be seen of all that the job needs.

    Args:
        spec: The job.
        clients: For boto3's clients.
        files: What its local inputs hold.
        is_local: Whether the service runs on this machine.
        now: The time.
    """
    sagemaker = clients("sagemaker")
    caller = _seen(lambda: _caller(clients("sts")), "who you are")
    buckets = {split_s3_uri(uri)[0] for uri in _places(spec)}
    return Facts(
        now=now,
        is_local=is_local,
        region=sagemaker.meta.region_name,
        known_types=_known_types(sagemaker),
        caller=caller,
        role=_seen(lambda: _role(clients("iam"), spec.role, caller), f"role {spec.role}"),
        image=Unseen(_NO_REGISTRY) if is_local else _image(clients, spec.image_uri),
        buckets={name: _seen(partial(_bucket, clients("s3"), name), f"bucket {name}") for name in buckets},
        inputs={name: _looked_at(clients("s3"), channel, files.get(name)) for name, channel in spec.inputs.items()},
        checkpoints=None
        if spec.checkpoint_s3_uri is None
        else _none_if_missing(
            _seen(partial(_checkpoints, clients("s3"), spec.checkpoint_s3_uri), spec.checkpoint_s3_uri)
        ),
        writers=_unless_missing(_seen(lambda: _writers(sagemaker, spec.checkpoint_s3_uri), "running jobs")),
        quota=Unseen(_NO_QUOTAS)
        if is_local
        else _unless_missing(_seen(lambda: _quotas(clients("service-quotas"), spec), "quotas")),
        source=look_at_source(spec.source_dir) if spec.source_dir is not None else None,
    )


def _places(spec: JobSpec) -> list[str]:
    places = [spec.output_path, spec.checkpoint_s3_uri]
    places += [channel.s3_uri for channel in spec.inputs.values() if channel.local_path is None]
    if spec.tensorboard_output_config is not None:
        places.append(spec.tensorboard_output_config.s3_output_path)
    return [place for place in places if place is not None]


def _seen(ask: Callable[[], T], what: str) -> "T | Unseen | Missing":
    """Return what *ask* returns; what a service refuses to show, or has not, is a fact as well."""
    import botocore.exceptions as aws

    try:
        return ask()
    except aws.ClientError as error:
        code, text = error.response["Error"].get("Code", "?"), error.response["Error"].get("Message", "")
        if code in _MISSING:
            return Missing(text or f"{what} is not there")
        return Unseen(f"{what}: {code}" + (f" ({text})" if text and text != "Forbidden" else ""))
    except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.TokenRetrievalError, aws.SSOError) as error:
        return Unseen(f"{what}: {str(error).rstrip('.')}")
    except (aws.BotoCoreError, aws.HTTPClientError) as error:
        return Unseen(f"{what}: {error}")


def _unless_missing(found: "T | Unseen | Missing") -> "T | Unseen":
    return Unseen(found.text) if isinstance(found, Missing) else found


def _none_if_missing(found: Checkpoints | Unseen | Missing) -> Checkpoints | Unseen:
    """Without a bucket there is no checkpoint; the bucket has a check of its own."""
    return Checkpoints(num_objects=0) if isinstance(found, Missing) else found


def _caller(sts: Any) -> Caller:
    answer = sts.get_caller_identity()
    return Caller(account=answer["Account"], arn=answer["Arn"])


def _role(iam: Any, arn: str, caller: object) -> Role:
    name = arn.rpartition("/")[2]
    policy = iam.get_role(RoleName=name)["Role"].get("AssumeRolePolicyDocument", {})
    statements = policy.get("Statement", []) if isinstance(policy, dict) else []
    statements = [statements] if isinstance(statements, dict) else statements
    trusted = [str(statement.get("Principal")) for statement in statements if statement.get("Effect") == "Allow"]
    return Role(
        trusts_sagemaker=any("sagemaker.amazonaws.com" in text for text in trusted),
        may_be_passed=_unless_missing(_seen(lambda: _may_pass(iam, arn, caller), "iam:PassRole")),
    )


def _may_pass(iam: Any, role: str, caller: object) -> "bool | Unseen":
    if not isinstance(caller, Caller):
        return Unseen("iam:PassRole: nobody knows whose policies to simulate")
    arn = caller.arn
    session = re.fullmatch(r"arn:(aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.*", arn)
    if session is not None:  # policies are those of the role
        arn = f"arn:{session[1]}:iam::{session[2]}:role/{session[3]}"
    if arn.endswith(":root"):
        return True
    answer = iam.simulate_principal_policy(
        PolicySourceArn=arn,
        ActionNames=["iam:PassRole"],
        ResourceArns=[role],
        ContextEntries=[
            {
                "ContextKeyName": "iam:PassedToService",
                "ContextKeyValues": ["sagemaker.amazonaws.com"],
                "ContextKeyType": "string",
            }
        ],
    )
    return all(result["EvalDecision"] == "allowed" for result in answer["EvaluationResults"])


def _image(clients: Clients, uri: str) -> Image | Unseen | Missing:
    found = parse_ecr_uri(uri)
    if found is None:
        return Unseen(f"{uri} is in no ECR registry")

    def ask() -> Image:
        answer = clients(f"ecr@{found.region}").describe_images(
            registryId=found.account, repositoryName=found.repository, imageIds=[found.image_id]
        )
        return Image(size_bytes=answer["imageDetails"][0].get("imageSizeInBytes"))

    return _seen(ask, f"image {uri}")


def _bucket(s3: Any, name: str) -> Bucket:
    answer = s3.head_bucket(Bucket=name)
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return Bucket(region=answer.get("BucketRegion") or headers.get("x-amz-bucket-region"))


def _looked_at(s3: Any, channel: Channel, files: LocalFiles | None) -> Objects | Unseen | Missing:
    if files is not None:
        return Objects(len(files.files), files.size_bytes)
    if channel.s3_uri is None:
        return Unseen("a file system in your VPC can't be seen from here")
    return _seen(partial(_objects, s3, channel, channel.s3_uri), channel.s3_uri)


def _objects(s3: Any, channel: Channel, uri: str) -> Objects:
    bucket, prefix = split_s3_uri(uri)
    if channel.s3_data_type != "S3Prefix":
        return Objects(1, int(s3.head_object(Bucket=bucket, Key=prefix)["ContentLength"]))
    answer = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
    entries = answer.get("Contents", [])
    return Objects(len(entries), sum(int(entry["Size"]) for entry in entries), bool(answer.get("IsTruncated")))


def _checkpoints(s3: Any, uri: str) -> Checkpoints:
    bucket, prefix = split_s3_uri(as_folder(uri))
    names = _sizes(s3, bucket, prefix)
    has_all = len(names) < _MAX_OBJECTS
    # Manifests come last in S3's order, behind all packs.
    manifests = names if has_all else _sizes(s3, bucket, prefix, "step-")
    steps = [int(match[1]) for match in map(MANIFEST_REGEX.fullmatch, manifests) if match]
    attempts = [name for name in names if EVENT_FILE_REGEX.fullmatch(name.removeprefix("events/"))]
    job_name = _job_of(s3, bucket, prefix + max(attempts)) if attempts else None
    if not steps:
        return Checkpoints(num_objects=len(names), job_name=job_name)
    key = manifest_key(max(steps))
    try:
        manifest = parse_manifest(s3.get_object(Bucket=bucket, Key=prefix + key)["Body"].read(), key)
        if has_all:
            check_listed(manifest, names, as_folder(uri))
    except (CheckpointDamaged, ResumeMismatch) as error:
        return Checkpoints(num_objects=len(names), newest_step=max(steps), job_name=job_name, damage=str(error))
    return Checkpoints(
        num_objects=len(names),
        newest_step=manifest.step,
        run_id=manifest.run_id,
        job_name=job_name,
        saved_at=manifest.created_at,
    )


def _sizes(s3: Any, bucket: str, prefix: str, begin: str = "") -> dict[str, int]:
    """Return name and size in bytes of what begins so below *prefix*, the first ones of very many."""
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix + begin, PaginationConfig={"MaxItems": _MAX_OBJECTS}
    )
    return {
        entry["Key"].removeprefix(prefix): int(entry["Size"]) for page in pages for entry in page.get("Contents", [])
    }


def _job_of(s3: Any, bucket: str, key: str) -> str | None:
    """Return the job whose attempt wrote the events at *key*; its first line says so."""
    head = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{_HEAD_BYTES - 1}")["Body"].read()
    lines = head.decode("utf-8", errors="replace").splitlines()
    first = next(iter(parse_events(lines[:1])), None)
    name = first.config.get("job") if isinstance(first, AttemptStarted) else None
    return str(name) if name else None


def _writers(sagemaker: Any, uri: str | None) -> tuple[str, ...]:
    if uri is None:
        return ()
    place = as_folder(uri)
    found = []
    summaries = sagemaker.list_training_jobs(StatusEquals="InProgress", SortBy="CreationTime", MaxResults=_MAX_JOBS)
    for summary in summaries["TrainingJobSummaries"]:
        job = sagemaker.describe_training_job(TrainingJobName=summary["TrainingJobName"])
        other = (job.get("CheckpointConfig") or {}).get("S3Uri")
        if other and (place.startswith(as_folder(other)) or as_folder(other).startswith(place)):
            found.append(str(summary["TrainingJobName"]))
    return tuple(found)


def _quotas(service_quotas: Any, spec: JobSpec) -> Mapping[str, float]:
    """Source: names of quotas in Service Quotas, "ml.g5.xlarge for spot training job usage"."""
    suffix = " for spot training job usage" if spec.use_spot_instances else " for training job usage"
    wanted = {f"{kind}{suffix}": kind for kind in spec.instance_types}
    found: dict[str, float] = {}
    for page in service_quotas.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker"):
        for quota in page["Quotas"]:
            if quota.get("QuotaName") in wanted:
                found[wanted[quota["QuotaName"]]] = float(quota["Value"])
        if len(found) == len(wanted):
            break
    return found


def _known_types(sagemaker: Any) -> frozenset[str]:
    shape = sagemaker.meta.service_model.shape_for("TrainingInstanceType")
    return frozenset(getattr(shape, "enum", ()))
