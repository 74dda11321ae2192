"""A job as DescribeTrainingJob and ListTrainingJobs show it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from spotproof.local.artifacts import artifact_url
from spotproof.local.metrics import MetricValue
from spotproof.local.request import JobPlan
from spotproof.local.state import JobState
from spotproof.local.statuses import Transition

__all__ = ["describe", "summarize"]

_NOT_REPEATED: Final = ("Tags", "SessionChainingConfig", "TrainingJobName")
"""Members of the request that the answer does not have. Source: the API model."""
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "AlgorithmSpecification": {"EnableSageMakerMetricsTimeSeries": False},
    "OutputDataConfig": {"KmsKeyId": "", "CompressionType": "GZIP"},
    "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
}
_CHANNEL_DEFAULTS: Final = {"CompressionType": "None", "RecordWrapperType": "None"}
"""What the service adds where the request says nothing. Source: descriptions of jobs in public logs and issues."""
_MAX_FINAL_METRICS: Final = 40


def describe(plan: JobPlan, state: JobState, metrics: Sequence[MetricValue], now: float) -> dict[str, Any]:
    """Return the answer of DescribeTrainingJob. Times are seconds since 1970, as on the wire."""
    model = "model.tar.gz" if plan.has_archives else "model/"
    answer: dict[str, Any] = {
        **_repeat(plan.request),
        "TrainingJobName": plan.name,
        "TrainingJobArn": plan.arn,
        "ModelArtifacts": {"S3ModelArtifacts": artifact_url(plan.output_url, plan.name, model)},
        "TrainingJobStatus": state.status,
        "SecondaryStatus": state.secondary,
        "SecondaryStatusTransitions": [_transition(item) for item in state.transitions],
        "CreationTime": state.created_at,
        "LastModifiedTime": state.modified_at,
        "EnableManagedSpotTraining": plan.rules.is_spot,
        "EnableNetworkIsolation": plan.request.get("EnableNetworkIsolation", False),
        "EnableInterContainerTrafficEncryption": plan.request.get("EnableInterContainerTrafficEncryption", False),
        "ProfilingStatus": "Disabled",
    }
    optional = {
        "FailureReason": state.failure_reason,
        "TrainingStartTime": state.training_start_at,
        "TrainingEndTime": state.training_end_at,
        "TrainingTimeInSeconds": state.training_seconds(now),
        "BillableTimeInSeconds": state.billable_seconds(now),
        "FinalMetricDataList": [
            {"MetricName": item.name, "Value": item.value, "Timestamp": item.at}
            for item in metrics[:_MAX_FINAL_METRICS]
        ]
        or None,
    }
    return answer | {name: value for name, value in optional.items() if value is not None}


def _repeat(request: Mapping[str, Any]) -> dict[str, Any]:
    repeated = {
        name: {**_DEFAULTS[name], **value} if name in _DEFAULTS else value
        for name, value in request.items()
        if name not in _NOT_REPEATED
    }
    if "InputDataConfig" in request:
        repeated["InputDataConfig"] = [{**_CHANNEL_DEFAULTS, **channel} for channel in request["InputDataConfig"]]
    return repeated


def summarize(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of ListTrainingJobs."""
    names = ("TrainingJobName", "TrainingJobArn", "CreationTime", "LastModifiedTime", "TrainingJobStatus")
    summary = {name: description[name] for name in (*names, "SecondaryStatus")}
    is_over = description["TrainingJobStatus"] in ("Completed", "Failed", "Stopped")
    if is_over and "TrainingEndTime" in description:
        summary["TrainingEndTime"] = description["TrainingEndTime"]
    return summary


def _transition(item: Transition) -> dict[str, Any]:
    # SDK v2 reads StatusMessage without asking whether it is there.
    entry: dict[str, Any] = {"Status": item.status, "StartTime": item.start_at, "StatusMessage": item.message}
    return entry if item.end_at is None else entry | {"EndTime": item.end_at}
