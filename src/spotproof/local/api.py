"""SageMaker's operations, as clients call them: a validated request in, the answer's JSON out."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from spotproof.local.inputs import InputError, find_objects
from spotproof.local.job import Job
from spotproof.local.jobs import Jobs
from spotproof.local.listing import build_page
from spotproof.local.request import JobPlan, parse_request
from spotproof.local.search import build_results
from spotproof.local.shelf import ImageShelf
from spotproof.local.tags import Tags, parse_tags, tag_list
from spotproof.local.validate import validate
from spotproof.local.wire import (
    ResourceInUse,
    ResourceLimitExceeded,
    ValidationException,
    find_operation,
)
from spotproof.storage._s3 import S3Storage, split_s3_url

__all__ = ["Api"]

_UPDATABLE: Final = ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig")
Operation = Callable[[dict[str, Any], str], dict[str, Any]]


class Api:
    """SageMaker over the jobs of one platform: training jobs, their tags, and the search among them."""

    def __init__(
        self,
        images: ImageShelf,
        open_bucket: Callable[[str], S3Storage],
        jobs: Jobs,
        *,
        spot_price_factor: float,
    ) -> None:
        self._images, self._open_bucket, self._jobs = images, open_bucket, jobs
        self._spot_price_factor = spot_price_factor
        self._tags = Tags(jobs)
        self._operations: dict[str, Operation] = {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": self._describe,
            "ListTrainingJobs": self._list,
            "StopTrainingJob": self._stop,
            "UpdateTrainingJob": self._update,
            "DeleteTrainingJob": self._delete,
            "AddTags": self._tags.add,
            "ListTags": self._tags.list,
            "DeleteTags": self._tags.delete,
            "Search": self._search,
        }

    def call(self, operation: str, body: Any, region: str) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            WireError: It is refused.
        """
        implementation = find_operation(self._operations, operation)
        return implementation(validate("sagemaker", operation, body), region)

    def describe(self, name: str) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob.

        Raises:
            ValidationException: There is none. Source: boto/boto3#2808 (not ResourceNotFound, as the model says).
        """
        description = self._jobs.describe(name)
        if description is None:
            raise ValidationException("Requested resource not found.")
        return description

    def find_live(self, name: str) -> Job | None:
        """Return a job that has not ended; None if it has.

        Raises:
            ValidationException: There is none of that name.
        """
        if not self._jobs.has(name):
            raise ValidationException("Requested resource not found.")
        return self._jobs.live(name)

    def _create(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        tags = parse_tags(request.get("Tags", []))
        plan = parse_request(request, self._images.find, region=region, spot_price_factor=self._spot_price_factor)
        if self._jobs.has(plan.name):
            raise _name_taken(plan)
        self._check_capacity(plan)
        self._check_s3(plan, region)
        if not self._jobs.create(plan, tags):  # two at once with one name: one of them gets it
            raise _name_taken(plan)
        return {"TrainingJobArn": plan.arn}

    def _check_capacity(self, plan: JobPlan) -> None:
        """Refuse what could only wait for ever. Source of the words: gabehollombe-aws/jupyter-notebooks#1."""
        capacity, num_hosts = self._jobs.capacity, plan.rules.num_hosts
        if num_hosts > capacity.num_hosts:
            quota = (
                f"{plan.request['ResourceConfig']['InstanceType']} for {'spot ' * plan.rules.is_spot}training job usage"
            )
            raise ResourceLimitExceeded(
                f"The account-level service limit '{quota}' is {capacity.num_hosts} Instances, with current "
                f"utilization of {capacity.num_used} Instances and a request delta of {num_hosts} Instances. "
                "Please contact AWS support to request an increase for this limit. (The local platform has as many "
                f"hosts as --capacity says: start it with --capacity {num_hosts} or more.)"
            )

    def _check_s3(self, plan: JobPlan, region: str) -> None:
        """Refuse what could only fail later: a prefix without objects, a bucket that is not there."""
        for channel in plan.channels:
            bucket, _ = split_s3_url(channel.s3_url)
            try:
                is_empty = not find_objects(channel, self._open_bucket)[1]
            except InputError as error:
                raise ValidationException(f"Channel {channel.name!r}: {error}") from None
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
        urls = {
            "OutputDataConfig.S3OutputPath": plan.output_url,
            "CheckpointConfig.S3Uri": plan.checkpoint_url,
            "TensorBoardOutputConfig.S3OutputPath": plan.tensorboard_url,
        }
        for name, url in urls.items():
            if url is None:
                continue
            try:
                self._open_bucket(split_s3_url(url)[0]).check_bucket()
            except OSError as error:
                raise ValidationException(f"{name} {url!r} can't be used: {error} Create the bucket first.") from error

    def _describe(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        return self.describe(request["TrainingJobName"])

    def _stop(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        job = self.find_live(request["TrainingJobName"])
        if job is None or not job.stop():
            raise self._wrong_status(request["TrainingJobName"])
        return {}

    def _update(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        """Source of what may change when: the API model's documentation of UpdateTrainingJob."""
        name = request["TrainingJobName"]
        job = self.find_live(name)
        if "KeepAlivePeriodInSeconds" in request.get("ResourceConfig", {}):
            raise ValidationException(
                f"KeepAlivePeriodInSeconds of {name} can not be updated: the training job has no warm pool in status "
                "Available (the local platform keeps none)."
            )
        if job is None or job.status != "InProgress":
            raise self._wrong_status(name)
        changes: dict[str, Any] = {key: request[key] for key in _UPDATABLE if key in request}
        if "RemoteDebugConfig" in changes and job.secondary not in ("Downloading", "Training"):
            raise ValidationException(
                "The request was rejected because the RemoteDebugConfig can be updated only while the secondary status "
                f"of the training job is Downloading or Training; it is {job.secondary}."
            )
        self._jobs.update(name, changes)
        return {"TrainingJobArn": job.plan.arn}

    def _delete(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        name = request["TrainingJobName"]
        if not self._jobs.has(name):
            raise ValidationException("Requested resource not found.")
        if not self._jobs.delete(name):
            raise ResourceInUse(
                f"The training job {name} can not be deleted because it is in status "
                f"{self.describe(name)['TrainingJobStatus']}. Only jobs in status Completed, Failed or Stopped can be "
                "deleted."
            )
        return {}

    def _wrong_status(self, name: str) -> ValidationException:
        status = self.describe(name)["TrainingJobStatus"]
        return ValidationException(f"The request was rejected because the training job is in status {status}.")

    def _search(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        return build_results(self._records(), request)

    def _records(self) -> Iterator[dict[str, Any]]:
        for name in [summary["TrainingJobName"] for summary in self._jobs.summaries()]:
            description = self._jobs.describe(name)
            if description is not None:  # it was deleted meanwhile
                yield description | {"Tags": tag_list(self._jobs.tags(name))}

    def _list(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        return build_page(self._jobs.summaries(), request)


def _name_taken(plan: JobPlan) -> ResourceInUse:
    return ResourceInUse(
        "Training job names must be unique within an AWS account and region, and a training job with this name "
        f"already exists ({plan.arn})"
    )
