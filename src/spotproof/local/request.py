"""From a CreateTrainingJob request to what the platform runs, with the service's rules that no model states. Pure."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spotproof import contract
from spotproof.errors import SpecError
from spotproof.local.images import Image, command_of
from spotproof.local.state import JobRules
from spotproof.local.wire import ValidationException
from spotproof.storage._s3 import split_s3_url

__all__ = ["Channel", "JobPlan", "job_arn", "parse_request"]

_MAX_RUN_DEFAULT_SECONDS = 86400
_MAX_RUN_LIMIT_SECONDS = 28 * 86400


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """One input."""

    name: str
    s3_url: str
    config: Mapping[str, str]
    """Its entry in inputdataconfig.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlan:
    """A job that may run."""

    name: str
    arn: str
    request: Mapping[str, Any]
    """As it came; Describe repeats it."""
    image: Image
    command: Sequence[str]
    rules: JobRules
    channels: Sequence[Channel]
    checkpoint_url: str | None
    checkpoint_dir: str | None
    """Below /opt/ml."""

    @property
    def output_url(self) -> str:
        return str(self.request["OutputDataConfig"]["S3OutputPath"])

    @property
    def metric_definitions(self) -> Sequence[Mapping[str, str]]:
        definitions: Sequence[Mapping[str, str]] = self.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        return definitions


def job_arn(request: Mapping[str, Any], region: str) -> str:
    """Return the ARN of a request's job: in the account of its role."""
    account = str(request["RoleArn"]).split(":")[4]
    return f"arn:aws:sagemaker:{region}:{account}:training-job/{request['TrainingJobName']}"


def parse_request(
    request: Mapping[str, Any], images: Mapping[str, Image], *, region: str, spot_price_factor: float
) -> JobPlan:
    """Return the plan of a request that the API model allows.

    Raises:
        ValidationException: SageMaker would refuse it, or this platform can't run it and says so.
    """
    resources = request.get("ResourceConfig", {})
    algorithm = request.get("AlgorithmSpecification", {})
    for name, value in (("AlgorithmSpecification", algorithm), ("ResourceConfig", resources)):
        if not value:
            raise _null(name)
    if "StoppingCondition" not in request:
        raise _null("StoppingCondition")
    if "TrainingImage" not in algorithm:
        raise ValidationException(
            "AlgorithmSpecification.TrainingImage is needed; the local platform has no AlgorithmName."
        )
    if resources.get("InstanceGroups") or resources.get("InstancePreferences"):
        raise ValidationException("The local platform has no InstanceGroups or InstancePreferences; use InstanceType.")
    if "InstanceType" not in resources:
        raise _null("ResourceConfig.InstanceType")
    num_hosts = resources.get("InstanceCount", 0)
    if num_hosts < 1:
        raise ValidationException(
            f"1 validation error detected: Value '{num_hosts}' at 'resourceConfig.instanceCount' failed to satisfy "
            "constraint: Member must have value greater than or equal to 1"
        )
    image = _find_image(algorithm["TrainingImage"], images)
    for definition in algorithm.get("MetricDefinitions", []):
        try:
            re.compile(definition["Regex"])
        except re.error as error:
            raise ValidationException(
                f"Metric definition {definition['Name']!r}: {definition['Regex']!r} is no regular expression ({error})."
            ) from None
    checkpoint = request.get("CheckpointConfig")
    output_url = request["OutputDataConfig"]["S3OutputPath"]
    for url in [output_url, *([checkpoint["S3Uri"]] if checkpoint else [])]:
        _check_s3(url)
    if request["OutputDataConfig"].get("CompressionType") == "NONE":
        raise ValidationException("The local platform has only CompressionType GZIP for the output.")
    return JobPlan(
        name=request["TrainingJobName"],
        arn=job_arn(request, region),
        request=request,
        image=image,
        command=command_of(image, algorithm.get("ContainerEntrypoint", []), algorithm.get("ContainerArguments", [])),
        rules=_parse_rules(request, num_hosts, spot_price_factor),
        channels=[_parse_channel(item, algorithm, num_hosts) for item in request.get("InputDataConfig", [])],
        checkpoint_url=checkpoint["S3Uri"] if checkpoint else None,
        checkpoint_dir=_parse_local_path(checkpoint) if checkpoint else None,
    )


def _parse_rules(request: Mapping[str, Any], num_hosts: int, spot_price_factor: float) -> JobRules:
    limits = request["StoppingCondition"]
    is_spot = bool(request.get("EnableManagedSpotTraining", False))
    max_run = limits.get("MaxRuntimeInSeconds", _MAX_RUN_DEFAULT_SECONDS)
    max_wait = limits.get("MaxWaitTimeInSeconds")
    if max_run > _MAX_RUN_LIMIT_SECONDS:
        raise ValidationException(
            f"Invalid MaxRuntimeInSeconds. It must be less than or equal to {_MAX_RUN_LIMIT_SECONDS} (28 days)"
        )
    if max_wait is not None and not is_spot:
        raise ValidationException(
            "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
        )
    if is_spot and (max_wait is None or max_wait < max_run):
        raise ValidationException(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
        )
    return JobRules(
        num_hosts=num_hosts,
        is_spot=is_spot,
        max_run_seconds=max_run,
        max_wait_seconds=max_wait,
        spot_price_factor=spot_price_factor,
    )


def _find_image(uri: str, images: Mapping[str, Image]) -> Image:
    if uri in images:
        return images[uri]
    known = ", ".join(sorted(images)) or "none"
    raise ValidationException(
        f"The local platform does not know the training image {uri!r} (it knows: {known}). It runs a folder and a "
        f'command in place of an image: start it with --image {uri}=FOLDER:"COMMAND", for example '
        f'--image {uri}=examples/cifar10:"python -m spotproof.container train.py".'
    )


def _parse_channel(item: Mapping[str, Any], algorithm: Mapping[str, Any], num_hosts: int) -> Channel:
    name = item["ChannelName"]
    source = item["DataSource"].get("S3DataSource")
    if name in (".", ".."):
        raise ValidationException(f"Channel name {name!r} can't be a directory below /opt/ml/input/data.")
    if source is None:
        raise ValidationException(f"Channel {name!r}: the local platform reads S3DataSource only.")
    mode = item.get("InputMode", algorithm["TrainingInputMode"])
    distribution = source.get("S3DataDistributionType", "FullyReplicated")
    if mode == "Pipe" or source["S3DataType"] != "S3Prefix" or item.get("CompressionType", "None") != "None":
        raise ValidationException(
            f"Channel {name!r}: the local platform has S3Prefix data without compression in File or FastFile mode only."
        )
    if distribution != "FullyReplicated" and num_hosts > 1:
        raise ValidationException(f"Channel {name!r}: the local platform has only FullyReplicated data.")
    _check_s3(source["S3Uri"])
    config = {
        "TrainingInputMode": mode,
        "S3DistributionType": distribution,
        "RecordWrapperType": item.get("RecordWrapperType", "None"),
    }
    if "ContentType" in item:
        config["ContentType"] = item["ContentType"]
    return Channel(name=name, s3_url=source["S3Uri"], config=config)


def _parse_local_path(checkpoint: Mapping[str, Any]) -> str:
    given = checkpoint.get("LocalPath") or contract.DEFAULT_CHECKPOINT_LOCAL_PATH
    path = posixpath.normpath(given)
    inside = posixpath.relpath(path, contract.ML_ROOT) if path.startswith("/") else ".."
    if inside in (".", "..") or inside.startswith("../") or "\0" in given:
        raise ValidationException(
            f"CheckpointConfig.LocalPath {given!r} is not below {contract.ML_ROOT}: the local platform mirrors only "
            f"directories there. Leave it out for {contract.DEFAULT_CHECKPOINT_LOCAL_PATH}."
        )
    return inside


def _check_s3(url: str) -> None:
    try:
        split_s3_url(url)
    except SpecError as error:
        raise ValidationException(str(error)) from None


def _null(name: str) -> ValidationException:
    path = ".".join(part[:1].lower() + part[1:] for part in name.split("."))
    return ValidationException(
        f"1 validation error detected: Value null at '{path}' failed to satisfy constraint: Member must not be null"
    )
