"""The operations of the two services, as clients call them: a validated request in, the answer's JSON out."""

import base64
import binascii
import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from spotproof.local.describe import summarize
from spotproof.local.images import Image
from spotproof.local.job import Job
from spotproof.local.logs import LOG_GROUP, LogReader
from spotproof.local.request import JobPlan, job_arn, parse_request
from spotproof.local.validate import validate
from spotproof.local.wire import (
    InvalidParameterException,
    ResourceInUse,
    ResourceNotFoundException,
    UnknownOperationException,
    ValidationException,
)
from spotproof.storage._s3 import S3Storage, split_s3_url

__all__ = ["Api", "LogsApi"]

_DEFAULT_MAX_RESULTS: Final = 10
Operation = Callable[[dict[str, Any], str], dict[str, Any]]


def _implementation(operations: dict[str, Operation], name: str) -> Operation:
    if name not in operations:
        raise UnknownOperationException(f"The local platform has no operation {name!r}, only {', '.join(operations)}.")
    return operations[name]


class Api:
    """SageMaker: Create, Describe, List and StopTrainingJob over the jobs of one platform."""

    def __init__(
        self,
        images: Mapping[str, Image],
        open_bucket: Callable[[str], S3Storage],
        start_job: Callable[[JobPlan], Job],
        *,
        spot_price_factor: float,
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self._images, self._open_bucket, self._start_job = images, open_bucket, start_job
        self._spot_price_factor = spot_price_factor
        self._lock = threading.Lock()
        self._operations: dict[str, Operation] = {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": self._describe,
            "ListTrainingJobs": self._list,
            "StopTrainingJob": self._stop,
        }

    def call(self, operation: str, body: Any, region: str) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            WireError: It is refused.
        """
        implementation = _implementation(self._operations, operation)
        return implementation(validate("sagemaker", operation, body), region)

    def find(self, name: str) -> Job:
        """Return a job.

        Raises:
            ValidationException: There is none. Source: boto/boto3#2808 (not ResourceNotFound, as the model says).
        """
        job = self.jobs.get(name)
        if job is None:
            raise ValidationException("Requested resource not found.")
        return job

    def _create(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        plan = parse_request(request, self._images, region=region, spot_price_factor=self._spot_price_factor)
        self._check_name(request, region)
        self._check_s3(plan, region)
        with self._lock:  # two at once with one name: one of them gets it
            self._check_name(request, region)
            self.jobs[plan.name] = self._start_job(plan)
        return {"TrainingJobArn": plan.arn}

    def _check_name(self, request: Mapping[str, Any], region: str) -> None:
        if request["TrainingJobName"] in self.jobs:
            raise ResourceInUse(
                "Training job names must be unique within an AWS account and region, and a training job with this name "
                f"already exists ({job_arn(request, region)})"
            )

    def _check_s3(self, plan: JobPlan, region: str) -> None:
        """Refuse what could only fail later: a prefix without objects, a bucket that is not there."""
        for channel in plan.channels:
            bucket, prefix = split_s3_url(channel.s3_url)
            try:
                is_empty = not self._open_bucket(bucket).list(prefix)
            except FileNotFoundError:
                is_empty = True
            except OSError as error:
                raise ValidationException(f"The input {channel.s3_url} can't be read: {error}") from error
            if is_empty:
                raise ValidationException(
                    f'No S3 objects found under S3 URL "{channel.s3_url}" given in input data source. Please ensure '
                    f"that the bucket exists in the selected region ({region}), that objects exist under that S3 "
                    f'prefix, and that the role "{plan.request["RoleArn"]}" has "s3:ListBucket" permissions on bucket '
                    f'"{bucket}".'
                )
        urls = {"OutputDataConfig.S3OutputPath": plan.output_url, "CheckpointConfig.S3Uri": plan.checkpoint_url}
        for name, url in urls.items():
            if url is None:
                continue
            try:
                self._open_bucket(split_s3_url(url)[0]).check_bucket()
            except OSError as error:
                raise ValidationException(f"{name} {url!r} can't be used: {error} Create the bucket first.") from error

    def _describe(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        return self.find(request["TrainingJobName"]).describe()

    def _stop(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        job = self.find(request["TrainingJobName"])
        if not job.stop():
            raise ValidationException(f"The request was rejected because the training job is in status {job.status}.")
        return {}

    def _list(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        matches = _parse_filter(request)
        summaries = [item for job in list(self.jobs.values()) if matches(item := summarize(job.describe()))]
        key = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(request.get("SortBy", ""), "CreationTime")
        is_descending = request.get("SortOrder") == "Descending"
        summaries.sort(key=lambda item: (item[key], item["TrainingJobName"]), reverse=is_descending)
        start = _parse_list_token(request["NextToken"]) if "NextToken" in request else 0
        end = start + request.get("MaxResults", _DEFAULT_MAX_RESULTS)
        page = summaries[start:end]
        if "StatusEquals" in request:
            # After cutting the page: MaxResults comes first, says the API's documentation.
            page = [item for item in page if item["TrainingJobStatus"] == request["StatusEquals"]]
        answer: dict[str, Any] = {"TrainingJobSummaries": page}
        if end < len(summaries):
            answer["NextToken"] = base64.urlsafe_b64encode(json.dumps(end).encode()).decode()
        return answer


def _parse_list_token(token: str) -> int:
    try:
        start = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        start = None
    if type(start) is not int or start < 0:
        raise ValidationException("Invalid pagination token.")
    return start


def _parse_filter(request: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether a summary is asked for; the request's times are read first, so that a bad one is always told."""
    after = {name: _seconds(request.get(f"{name}After", 0.0)) for name in ("CreationTime", "LastModifiedTime")}
    before = {name: _seconds(request.get(f"{name}Before", float("inf"))) for name in after}
    part = request.get("NameContains", "").lower()
    is_impossible = "WarmPoolStatusEquals" in request or "TrainingPlanArnEquals" in request

    def matches(item: Mapping[str, Any]) -> bool:
        is_in_time = all(after[name] <= item[name] <= before[name] for name in after)
        return is_in_time and part in item["TrainingJobName"].lower() and not is_impossible

    return matches


def _seconds(value: float | str) -> float:
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise ValidationException(f"{value!r} is not a time.") from None


class LogsApi:
    """CloudWatch Logs: DescribeLogStreams and GetLogEvents of the one group that training jobs write to."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._operations: dict[str, Operation] = {
            "DescribeLogStreams": self._describe_streams,
            "GetLogEvents": self._get_events,
        }

    def call(self, operation: str, body: Any, region: str) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            WireError: It is refused.
        """
        implementation = _implementation(self._operations, operation)
        request = validate("logs", operation, body)
        group = request.get("logGroupName") or request.get("logGroupIdentifier", "")
        streams = self._reader.streams()
        if group.rpartition(":")[2] != LOG_GROUP or not streams:
            raise ResourceNotFoundException("The specified log group does not exist.")
        return implementation(request, region)

    def _describe_streams(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        names = self._reader.streams(request.get("logStreamNamePrefix", ""))
        start = _parse_list_token(request["nextToken"]) if "nextToken" in request else 0
        end = start + request.get("limit", 50)
        streams = [self._reader.describe(name) for name in names]
        if request.get("orderBy") == "LastEventTime":
            streams.sort(key=lambda item: item.get("lastEventTimestamp", 0))
        if request.get("descending"):
            streams.reverse()
        answer: dict[str, Any] = {"logStreams": streams[start:end]}
        if end < len(streams):
            answer["nextToken"] = base64.urlsafe_b64encode(json.dumps(end).encode()).decode()
        return answer

    def _get_events(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        try:
            return self._reader.events(
                request["logStreamName"],
                token=request.get("nextToken"),
                start_ms=request.get("startTime", 0),
                end_ms=request.get("endTime"),
                limit=request.get("limit"),
                is_from_head=request.get("startFromHead", False),
            )
        except FileNotFoundError:
            raise ResourceNotFoundException("The specified log stream does not exist.") from None
        except ValueError as error:
            raise InvalidParameterException(str(error)) from None
