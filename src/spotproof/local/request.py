"""From a CreateTrainingJob request to what the platform runs, with the service's rules that no model states. Pure."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spotproof import contract
from spotproof.errors import SpecError
from spotproof.local.images import EngineImage, Image, command_of
from spotproof.local.metrics import compile_definitions
from spotproof.local.statuses import JobRules
from spotproof.local.wire import ValidationException
from spotproof.storage._s3 import split_s3_url

__all__ = ["Channel", "JobPlan", "job_arn", "parse_request"]

_MAX_RUN_DEFAULT_SECONDS = 86400
_MAX_RUN_LIMIT_SECONDS = 28 * 86400
_ACCELERATED = ("ml.p", "ml.g", "ml.trn")
"""Source: the API model, MaxPendingTimeInSeconds: "has no effect on jobs that request CPU-only instance types"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """One input."""

    name: str
    s3_url: str
    data_type: Literal["S3Prefix", "ManifestFile"] = "S3Prefix"
    is_sharded: bool = False
    """Each host gets a part of it."""
    is_compressed: bool = False
    """Its objects are gzip files."""
    is_read_only: bool = False
    config: Mapping[str, str]
    """Its entry in inputdataconfig.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlan:
    """A job that may run."""

    name: str
    arn: str
    request: Mapping[str, Any]
    """As it came; Describe repeats it."""
    image: Image | EngineImage
    command: Sequence[str]
    rules: JobRules
    channels: Sequence[Channel]
    checkpoint_url: str | None
    checkpoint_dir: str | None
    """Below /opt/ml."""
    tensorboard_url: str | None
    tensorboard_dir: str | None
    """Below /opt/ml."""

    @property
    def output_url(self) -> str:
        return str(self.request["OutputDataConfig"]["S3OutputPath"])

    @property
    def has_archives(self) -> bool:
        """Whether model and output go to S3 packed."""
        return bool(self.request["OutputDataConfig"].get("CompressionType", "GZIP") != "NONE")

    @property
    def is_isolated(self) -> bool:
        """Whether the hosts have no network but their own."""
        return bool(self.request.get("EnableNetworkIsolation", False))

    @property
    def metric_definitions(self) -> Sequence[Mapping[str, str]]:
        definitions: Sequence[Mapping[str, str]] = self.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        return definitions


def job_arn(request: Mapping[str, Any], region: str) -> str:
    """Return the ARN of a request's job: in the account of its role."""
    account = str(request["RoleArn"]).split(":")[4]
    return f"arn:aws:sagemaker:{region}:{account}:training-job/{request['TrainingJobName']}"


def parse_request(
    request: Mapping[str, Any],
    find_image: Callable[[str], Image | EngineImage],
    *,
    region: str,
    spot_price_factor: float,
) -> JobPlan:
    """Return the plan of a request that the API model allows.

    Args:
        request: What the API model allows.
        find_image: By its URI; raises ValidationException for one that is not here.
        region: Of the job's ARN.
        spot_price_factor: Billable seconds of a spot job for one training second.

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
    image = find_image(algorithm["TrainingImage"])
    try:
        compile_definitions(algorithm.get("MetricDefinitions", []))
    except ValueError as error:
        raise ValidationException(str(error)) from None
    checkpoint = request.get("CheckpointConfig")
    output_url = request["OutputDataConfig"]["S3OutputPath"]
    tensorboard = request.get("TensorBoardOutputConfig")
    urls = [output_url]
    urls += [checkpoint["S3Uri"]] if checkpoint else []
    urls += [tensorboard["S3OutputPath"]] if tensorboard else []
    for url in urls:
        _check_s3(url)
    return JobPlan(
        name=request["TrainingJobName"],
        arn=job_arn(request, region),
        request=request,
        image=image,
        command=command_of(image, algorithm.get("ContainerEntrypoint", []), algorithm.get("ContainerArguments", [])),
        rules=_parse_rules(request, num_hosts, spot_price_factor),
        channels=_parse_channels(request),
        checkpoint_url=checkpoint["S3Uri"] if checkpoint else None,
        checkpoint_dir=_parse_local_path("CheckpointConfig", checkpoint, contract.DEFAULT_CHECKPOINT_LOCAL_PATH),
        tensorboard_url=_tensorboard_url(request, tensorboard),
        tensorboard_dir=_parse_local_path(
            "TensorBoardOutputConfig", tensorboard, contract.DEFAULT_TENSORBOARD_LOCAL_PATH
        ),
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
    resources = request["ResourceConfig"]
    if is_spot and resources.get("KeepAlivePeriodInSeconds"):
        raise ValidationException(
            "Invalid KeepAlivePeriodInSeconds. Warm pools can not be used with managed spot training"
        )
    is_accelerated = resources["InstanceType"].startswith(_ACCELERATED)
    return JobRules(
        num_hosts=num_hosts,
        is_spot=is_spot,
        max_run_seconds=max_run,
        max_wait_seconds=max_wait,
        max_pending_seconds=limits.get("MaxPendingTimeInSeconds") if is_accelerated else None,
        max_retries=request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0),
        spot_price_factor=spot_price_factor,
    )


def _parse_channels(request: Mapping[str, Any]) -> list[Channel]:
    channels = [_parse_channel(item, request["AlgorithmSpecification"]) for item in request.get("InputDataConfig", [])]
    names = [channel.name for channel in channels]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValidationException(f"Channel names must be unique within a training job: {', '.join(repeated)}.")
    return channels


def _parse_channel(item: Mapping[str, Any], algorithm: Mapping[str, Any]) -> Channel:
    name = item["ChannelName"]
    source = item["DataSource"].get("S3DataSource")
    if name in (".", ".."):
        raise ValidationException(f"Channel name {name!r} can't be a directory below /opt/ml/input/data.")
    if source is None:
        raise ValidationException(f"Channel {name!r}: the local platform reads S3DataSource only, no file systems.")
    mode = item.get("InputMode", algorithm["TrainingInputMode"])
    data_type = source["S3DataType"]
    if data_type == "AugmentedManifestFile" and mode != "Pipe":
        raise ValidationException(
            f"Channel {name!r}: AugmentedManifestFile can only be used if the Channel's input mode is Pipe, and it is "
            f"{mode}. Pipe mode is not in the local platform; a ManifestFile works in File and FastFile mode."
        )
    if mode == "Pipe":
        raise ValidationException(
            f"Channel {name!r}: the local platform has no Pipe mode. Use File, or FastFile, which AWS recommends "
            "in its place."
        )
    if data_type not in ("S3Prefix", "ManifestFile"):
        raise ValidationException(
            f"Channel {name!r}: the local platform reads S3Prefix and ManifestFile, no {data_type}."
        )
    if source.get("InstanceGroupNames"):
        raise ValidationException(f"Channel {name!r}: the local platform has no instance groups.")
    _check_s3(source["S3Uri"])
    distribution = source.get("S3DataDistributionType", "FullyReplicated")
    config = {
        "TrainingInputMode": mode,
        "S3DistributionType": distribution,
        "RecordWrapperType": item.get("RecordWrapperType", "None"),
    }
    if "ContentType" in item:
        config["ContentType"] = item["ContentType"]
    return Channel(
        name=name,
        s3_url=source["S3Uri"],
        data_type=data_type,
        is_sharded=distribution == "ShardedByS3Key",
        is_compressed=item.get("CompressionType") == "Gzip",
        is_read_only=mode == "FastFile",
        config=config,
    )


def _parse_local_path(name: str, config: Mapping[str, Any] | None, default: str) -> str | None:
    if config is None:
        return None
    given = config.get("LocalPath") or default
    path = posixpath.normpath(given)
    inside = posixpath.relpath(path, contract.ML_ROOT) if path.startswith("/") else ".."
    if inside in (".", "..") or inside.startswith("../") or "\0" in given:
        raise ValidationException(
            f"{name}.LocalPath {given!r} is not below {contract.ML_ROOT}: the local platform mirrors only "
            f"directories there. Leave it out for {default}."
        )
    return inside


def _tensorboard_url(request: Mapping[str, Any], config: Mapping[str, Any] | None) -> str | None:
    """Source: aws/sagemaker-python-sdk, estimator.py, where it looks for the files."""
    if config is None:
        return None
    return f"{config['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/tensorboard-output/"


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
