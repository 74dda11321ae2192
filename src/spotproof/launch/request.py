"""JobSpec to CreateTrainingJob: the one place where our words become the wire's. Pure."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from spotproof.contract import STEP_METRIC_NAME, STEP_METRIC_REGEX
from spotproof.errors import SpecError
from spotproof.spec import JobSpec, hyperparameter_text, split_s3_uri

__all__ = ["build_request", "input_prefix", "unique_job_name", "with_uploaded_inputs"]

_MAX_NAME = 63
_MAX_METRICS = 40
_VOLUME_GB = 30
"""The SDK's default."""


def unique_job_name(base: str, now: datetime) -> str:
    """Return *base* with the time *now* at its end, cut so that the whole keeps to the service's 63 characters.

    A job's name stays taken after the job's end, so each submission needs a new one.
    """
    stamp = f"{now:-%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}"
    return re.sub(r"-+$", "", base[: _MAX_NAME - len(stamp)]) + stamp


def input_prefix(spec: JobSpec, *, job_name: str, channel: str) -> str:
    """Return where a local input of *channel* is uploaded to: in the output's bucket, under the job's name."""
    bucket, _ = split_s3_uri(spec.output_path)
    return f"s3://{bucket}/{job_name}/input/{channel}/"


def with_uploaded_inputs(spec: JobSpec, *, job_name: str) -> tuple[JobSpec, dict[str, Path]]:
    """Return *spec* with S3 places for all inputs, and what must be uploaded for that: S3 prefix to local path."""
    uploads = {
        input_prefix(spec, job_name=job_name, channel=channel): path for channel, path in spec.local_inputs.items()
    }
    moved = {channel: input_prefix(spec, job_name=job_name, channel=channel) for channel in spec.local_inputs}
    return spec.model_copy(update={"inputs": {**spec.inputs, **moved}}), uploads


def build_request(spec: JobSpec, *, job_name: str) -> dict[str, Any]:
    """Return the CreateTrainingJob request for *spec*, with the members the SDK's Estimator would send.

    The step metric is added where there is room, so that the service itself can tell how far a job is. A checkpoint
    URI gets a slash at its end: the service takes it as a raw prefix, and ``run-1`` would also restore ``run-10``.

    Raises:
        SpecError: An input still lies on this machine; see :func:`with_uploaded_inputs`.

    Source: requests recorded from SDK v2 2.257.7; the prefix: syne-tune/syne-tune#363.
    """
    if spec.local_inputs:
        channel, path = next(iter(spec.local_inputs.items()))
        raise SpecError(
            f"Input {channel!r} is the local path {path}.", why="The service reads S3 only.", do="Upload it first."
        )
    metrics = [{"Name": metric.Name, "Regex": metric.Regex} for metric in spec.metric_definitions]
    if len(metrics) < _MAX_METRICS and all(metric["Name"] != STEP_METRIC_NAME for metric in metrics):
        metrics.append({"Name": STEP_METRIC_NAME, "Regex": STEP_METRIC_REGEX})
    stopping = {"MaxRuntimeInSeconds": spec.max_run}
    if spec.max_wait is not None:
        stopping["MaxWaitTimeInSeconds"] = spec.max_wait
    request: dict[str, Any] = {
        "TrainingJobName": job_name,
        "RoleArn": spec.role,
        "AlgorithmSpecification": {
            "TrainingImage": spec.image_uri,
            "TrainingInputMode": "File",
            "MetricDefinitions": metrics,
        },
        "OutputDataConfig": {"S3OutputPath": spec.output_path},
        "ResourceConfig": {
            "InstanceType": spec.instance_type,
            "InstanceCount": spec.instance_count,
            "VolumeSizeInGB": _VOLUME_GB,
        },
        "StoppingCondition": stopping,
        "EnableManagedSpotTraining": spec.use_spot_instances,
    }
    if spec.inputs:  # an empty list is invalid
        request["InputDataConfig"] = [_channel(name, uri) for name, uri in spec.inputs.items()]
    if spec.hyperparameters:
        request["HyperParameters"] = {key: hyperparameter_text(value) for key, value in spec.hyperparameters.items()}
    if spec.environment:
        request["Environment"] = dict(spec.environment)
    if spec.checkpoint_s3_uri is not None:
        request["CheckpointConfig"] = {"S3Uri": spec.checkpoint_s3_uri.rstrip("/") + "/"}
        if spec.checkpoint_local_path is not None:
            request["CheckpointConfig"]["LocalPath"] = spec.checkpoint_local_path
    if spec.max_retry_attempts is not None:
        request["RetryStrategy"] = {"MaximumRetryAttempts": spec.max_retry_attempts}
    return request


def _channel(name: str, uri: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        },
    }
