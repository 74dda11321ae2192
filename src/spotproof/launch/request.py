"""JobSpec to CreateTrainingJob: the one place where our words become the wire's. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from spotproof.contract import STEP_METRIC_NAME, STEP_METRIC_REGEX
from spotproof.errors import SpecError
from spotproof.spec import Channel, JobSpec, as_folder, hyperparameter_text

__all__ = ["build_request", "input_prefix", "unique_job_name", "with_uploaded_inputs"]

_MAX_NAME = 63
_MAX_METRICS = 40


def unique_job_name(base: str, now: datetime) -> str:
    """Return *base* with the time *now* at its end, cut so that the whole keeps to the service's 63 characters.

    A job's name stays taken after the job's end, so each submission needs a new one.
    """
    stamp = f"{now:-%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}"
    return re.sub(r"-+$", "", base[: _MAX_NAME - len(stamp)]) + stamp


def input_prefix(spec: JobSpec, *, channel: str, digest: str) -> str:
    """Return where a local input with that *digest* of its content is uploaded to.

    What lies there never changes: data that another launch replaced would also be what a running job finds at its next
    start. And what was uploaded once need not be again.
    """
    return f"{as_folder(spec.output_path)}inputs/{channel}/{digest}/"


def with_uploaded_inputs(spec: JobSpec, digests: Mapping[str, str]) -> JobSpec:
    """Return *spec* with S3 places for its local inputs; *digests* tells the content of each channel."""
    moved = {
        channel: spec.inputs[channel].model_copy(
            update={"s3_uri": input_prefix(spec, channel=channel, digest=digests[channel])}
        )
        for channel in spec.local_inputs
    }
    return spec.model_copy(update={"inputs": {**spec.inputs, **moved}})


def build_request(spec: JobSpec, *, job_name: str) -> dict[str, Any]:
    """Return the CreateTrainingJob request for *spec*, with the members the SDK's Estimator would send.

    The step metric is added where there is room, so that the service itself can tell how far a job is. A checkpoint
    URI gets a slash at its end: the service takes it as a raw prefix, and ``run-1`` would also restore ``run-10``.
    Nothing is sent of the debugger and the profiler, which the SDK switches on.

    Raises:
        SpecError: An input still lies on this machine; see :func:`with_uploaded_inputs`.

    Source: requests recorded from SDK v2 2.257.7; the prefix: syne-tune/syne-tune#363.
    """
    if spec.local_inputs:
        channel, path = next(iter(spec.local_inputs.items()))
        raise SpecError(
            f"Input {channel!r} is the local path {path}.", why="The service reads S3 only.", do="Upload it first."
        )
    request: dict[str, Any] = {
        "TrainingJobName": job_name,
        "RoleArn": spec.role,
        "AlgorithmSpecification": _algorithm(spec),
        "OutputDataConfig": _output(spec),
        "ResourceConfig": _resources(spec),
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_run},
        "EnableManagedSpotTraining": spec.use_spot_instances,
    }
    if spec.max_wait is not None:
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = spec.max_wait
    if spec.inputs:  # an empty list is invalid
        request["InputDataConfig"] = [_channel(name, channel) for name, channel in spec.inputs.items()]
    if spec.hyperparameters:
        request["HyperParameters"] = {key: hyperparameter_text(value) for key, value in spec.hyperparameters.items()}
    if spec.environment:
        request["Environment"] = dict(spec.environment)
    if spec.checkpoint_s3_uri is not None:
        request["CheckpointConfig"] = {"S3Uri": as_folder(spec.checkpoint_s3_uri)}
        if spec.checkpoint_local_path is not None:
            request["CheckpointConfig"]["LocalPath"] = spec.checkpoint_local_path
    if spec.tensorboard_output_config is not None:
        tensorboard = spec.tensorboard_output_config
        request["TensorBoardOutputConfig"] = {"S3OutputPath": tensorboard.s3_output_path}
        if tensorboard.container_local_output_path is not None:
            request["TensorBoardOutputConfig"]["LocalPath"] = tensorboard.container_local_output_path
    if spec.max_retry_attempts is not None:
        request["RetryStrategy"] = {"MaximumRetryAttempts": spec.max_retry_attempts}
    if spec.enable_infra_check is not None:
        request["InfraCheckConfig"] = {"EnableInfraCheck": spec.enable_infra_check}
    return {**request, **_access(spec)}


def _algorithm(spec: JobSpec) -> dict[str, Any]:
    metrics = [{"Name": metric.Name, "Regex": metric.Regex} for metric in spec.metric_definitions]
    if len(metrics) < _MAX_METRICS and all(metric["Name"] != STEP_METRIC_NAME for metric in metrics):
        metrics.append({"Name": STEP_METRIC_NAME, "Regex": STEP_METRIC_REGEX})
    algorithm: dict[str, Any] = {
        "TrainingImage": spec.image_uri,
        "TrainingInputMode": spec.input_mode,
        "MetricDefinitions": metrics,
    }
    if spec.training_repository_access_mode is not None:
        algorithm["TrainingImageConfig"] = {"TrainingRepositoryAccessMode": spec.training_repository_access_mode}
        provider = spec.training_repository_credentials_provider_arn
        if provider is not None:
            credentials = {"TrainingRepositoryCredentialsProviderArn": provider}
            algorithm["TrainingImageConfig"]["TrainingRepositoryAuthConfig"] = credentials
    if spec.container_entry_point is not None:
        algorithm["ContainerEntrypoint"] = list(spec.container_entry_point)
    if spec.container_arguments is not None:
        algorithm["ContainerArguments"] = list(spec.container_arguments)
    if spec.enable_sagemaker_metrics is not None:
        algorithm["EnableSageMakerMetricsTimeSeries"] = spec.enable_sagemaker_metrics
    return algorithm


def _output(spec: JobSpec) -> dict[str, Any]:
    output = {"S3OutputPath": spec.output_path}
    if spec.output_kms_key is not None:
        output["KmsKeyId"] = spec.output_kms_key
    if spec.disable_output_compression:
        output["CompressionType"] = "NONE"
    return output


def _resources(spec: JobSpec) -> dict[str, Any]:
    resources: dict[str, Any] = {
        "InstanceType": spec.instance_type,
        "InstanceCount": spec.instance_count,
        "VolumeSizeInGB": spec.volume_size,
    }
    if spec.volume_kms_key is not None:
        resources["VolumeKmsKeyId"] = spec.volume_kms_key
    if spec.keep_alive_period_in_seconds is not None:
        resources["KeepAlivePeriodInSeconds"] = spec.keep_alive_period_in_seconds
    return resources


def _access(spec: JobSpec) -> dict[str, Any]:
    members: dict[str, Any] = {}
    if spec.subnets:
        members["VpcConfig"] = {"SecurityGroupIds": list(spec.security_group_ids), "Subnets": list(spec.subnets)}
    if spec.enable_network_isolation:
        members["EnableNetworkIsolation"] = True
    if spec.encrypt_inter_container_traffic:
        members["EnableInterContainerTrafficEncryption"] = True
    if spec.enable_remote_debug is not None:
        members["RemoteDebugConfig"] = {"EnableRemoteDebug": spec.enable_remote_debug}
    if spec.enable_session_tag_chaining is not None:
        members["SessionChainingConfig"] = {"EnableSessionTagChaining": spec.enable_session_tag_chaining}
    if spec.tags:
        members["Tags"] = [{"Key": key, "Value": value} for key, value in spec.tags.items()]
    return members


def _channel(name: str, channel: Channel) -> dict[str, Any]:
    member: dict[str, Any] = {"ChannelName": name, "DataSource": _source(channel)}
    optional = {
        "ContentType": channel.content_type,
        "CompressionType": channel.compression,
        "RecordWrapperType": channel.record_wrapping,
        "InputMode": channel.input_mode,
    }
    member.update({key: value for key, value in optional.items() if value is not None})
    if channel.shuffle_seed is not None:
        member["ShuffleConfig"] = {"Seed": channel.shuffle_seed}
    return member


def _source(channel: Channel) -> dict[str, Any]:
    if channel.file_system_id is not None:
        return {
            "FileSystemDataSource": {
                "FileSystemId": channel.file_system_id,
                "FileSystemAccessMode": channel.file_system_access_mode,
                "FileSystemType": channel.file_system_type,
                "DirectoryPath": channel.directory_path,
            }
        }
    source: dict[str, Any] = {
        "S3DataType": channel.s3_data_type,
        "S3Uri": channel.s3_uri,
        "S3DataDistributionType": channel.distribution,
    }
    if channel.attribute_names:
        source["AttributeNames"] = list(channel.attribute_names)
    return {"S3DataSource": source}
