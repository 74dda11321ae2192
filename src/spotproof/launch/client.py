"""The thin shell around boto3: submit, look, wait, stop, list, upload."""

import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from spotproof.contract import TERMINAL_STATUSES
from spotproof.errors import LaunchError
from spotproof.launch.failures import ServiceUnreachable, translated
from spotproof.launch.local_files import LocalFiles
from spotproof.launch.logs import LogReader, Position
from spotproof.launch.preflight import Facts, look
from spotproof.launch.upload import Uploaded, upload_files
from spotproof.spec import JobSpec, split_s3_uri

__all__ = ["TrainingService"]

_PATIENCE_SECONDS = 120
"""How long waiting for a job outlives a service that does not answer; the job itself does not depend on us."""


class TrainingService:
    """SageMaker training, real or local, as boto3 sees it.

    Args:
        endpoint: URL for SageMaker and its logs. None: boto3's own choice (``AWS_ENDPOINT_URL_SAGEMAKER``,
            ``AWS_ENDPOINT_URL``, the AWS profile, else AWS). An argument beats the environment.
        s3_endpoint: The same for S3.
        region: The AWS region. None: boto3's own choice.

    Raises:
        LaunchError: No region or an impossible endpoint is configured.
    """

    def __init__(
        self, *, endpoint: str | None = None, s3_endpoint: str | None = None, region: str | None = None
    ) -> None:
        import boto3

        self._endpoint, self._s3_endpoint = endpoint, s3_endpoint
        try:
            with translated("open"):
                self._session = boto3.session.Session(region_name=region)
                self._sagemaker = self._open("sagemaker", endpoint)
        except ValueError as error:
            raise LaunchError(f"The endpoint is impossible: {error}.", do="Correct its URL.") from error

    def _open(self, name: Any, endpoint: str | None) -> Any:
        return self._session.client(name, endpoint_url=endpoint, config=self._config())

    @staticmethod
    def _config() -> Any:
        import botocore.config

        # A connection for each thread of an upload.
        return botocore.config.Config(
            retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, max_pool_connections=20
        )

    # Opened when they are needed: each takes a tenth of a second, and `list` needs neither.

    @cached_property
    def _logs(self) -> Any:
        with translated("open its logs"):
            return self._open("logs", self._endpoint)

    @cached_property
    def _s3(self) -> Any:
        with translated("open S3"):
            return self._open("s3", self._s3_endpoint)

    def look(self, spec: JobSpec, files: Mapping[str, LocalFiles], *, now: datetime) -> Facts:
        """Return what can be seen of all that the job needs; *files* are those of its local inputs."""
        return look(spec, self._client, files, is_local=self.is_local, now=now)

    def _client(self, name: str) -> Any:
        """Return a client for looking around: ``sts``, or ``ecr@eu-west-1`` in another region than the job's."""
        if name in ("sagemaker", "s3"):
            return self._sagemaker if name == "sagemaker" else self._s3
        import boto3

        service, _, region = name.partition("@")
        session = boto3.session.Session(region_name=region) if region else self._session
        # The local server answers for the other services at the same URL.
        endpoint = self.endpoint if self.is_local else None
        client: Any = session.client
        return client(service, endpoint_url=endpoint, config=self._config())

    @property
    def endpoint(self) -> str:
        """The URL in use, for messages."""
        return str(self._sagemaker.meta.endpoint_url)

    @property
    def region(self) -> str:
        """The region in use."""
        return str(self._sagemaker.meta.region_name)

    @property
    def is_local(self) -> bool:
        """Whether the service runs on this machine."""
        return self.endpoint.startswith(("http://127.0.0.1", "http://localhost"))

    @property
    def poll_seconds(self) -> float:
        """How long to wait between two looks at a job: AWS limits how often Describe may be called."""
        return 0.5 if self.is_local else 10.0

    def credentials(self) -> dict[str, str]:
        """Return the AWS settings in use as environment variables, for libraries that read no AWS profile.

        Empty if there are none, or if they come from the environment already.
        """
        if os.environ.get("AWS_ACCESS_KEY_ID"):
            return {}
        with translated("give credentials"):
            found = self._session.get_credentials()
        if found is None:
            return {}
        keys = found.get_frozen_credentials()
        values = {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token,
            "AWS_DEFAULT_REGION": self._session.region_name,
        }
        return {name: value for name, value in values.items() if value}

    def submit(self, request: dict[str, Any]) -> str:
        """Create the training job; return its ARN.

        Raises:
            LaunchError: The service refused; carries its text.
        """
        name = request["TrainingJobName"]
        with translated(f"take job {name!r}"):
            return str(self._sagemaker.create_training_job(**request)["TrainingJobArn"])

    def describe(self, job_name: str) -> dict[str, Any]:
        """Return the service's description of the job.

        Raises:
            LaunchError: There is no such job, or the service cannot be reached.
        """
        with translated(f"describe job {job_name!r}"):
            answer: dict[str, Any] = self._sagemaker.describe_training_job(TrainingJobName=job_name)
        answer.pop("ResponseMetadata", None)
        return answer

    def wait(
        self,
        job_name: str,
        *,
        on_poll: Callable[[dict[str, Any]], None] = lambda _: None,
        on_change: Callable[[dict[str, Any]], None] = lambda _: None,
        poll_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Block until the job has ended; return its last description. Failed is an end like the others.

        Args:
            on_poll: Called with each description.
            on_change: Called once with each new entry of SecondaryStatusTransitions.
            poll_seconds: Time between two looks; default 0.5 for a local service, 10 for AWS.

        Raises:
            LaunchError: There is no such job, or the service has not answered for two minutes.
        """
        pause = poll_seconds if poll_seconds is not None else self.poll_seconds
        told = 0
        silent_since: float | None = None
        while True:
            try:
                answer = self.describe(job_name)
            except ServiceUnreachable:
                now = time.monotonic()
                silent_since = now if silent_since is None else silent_since
                if now - silent_since > _PATIENCE_SECONDS:
                    raise
                time.sleep(pause)
                continue
            silent_since = None
            transitions = answer.get("SecondaryStatusTransitions", [])
            for transition in transitions[told:]:
                on_change(transition)
            told = len(transitions)
            on_poll(answer)
            if answer["TrainingJobStatus"] in TERMINAL_STATUSES:
                return answer
            time.sleep(pause)

    def stop(self, job_name: str) -> None:
        """Ask the service to stop the job; it gets its grace and uploads what it has.

        Raises:
            LaunchError: There is no such job, or it has ended.
        """
        with translated(f"stop job {job_name!r}"):
            self._sagemaker.stop_training_job(TrainingJobName=job_name)

    def list(
        self,
        *,
        limit: int = 50,
        status: str | None = None,
        name_contains: str | None = None,
        since: datetime | None = None,
    ) -> list[dict[str, Any]]:
        """Return the summaries of the newest *limit* jobs, newest first.

        Args:
            limit: >= 1.
            status: Only those in this TrainingJobStatus.
            name_contains: Only those with this in their name, in capitals or not.
            since: Only those that were created later.
        """
        wanted: dict[str, Any] = {"StatusEquals": status, "NameContains": name_contains, "CreationTimeAfter": since}
        found: list[dict[str, Any]] = []
        with translated("list jobs"):
            pages = self._sagemaker.get_paginator("list_training_jobs").paginate(
                SortBy="CreationTime",
                SortOrder="Descending",
                PaginationConfig={"MaxItems": limit, "PageSize": min(limit, 100)},
                **{name: value for name, value in wanted.items() if value is not None},
            )
            for page in pages:
                found.extend(page["TrainingJobSummaries"])
        return found

    def open_logs(self, job_name: str, *, after: Position | None = None, since: datetime | None = None) -> LogReader:
        """Return a reader of the job's log: from its beginning, from behind *after*, without what is before *since*."""
        return LogReader(self._logs, job_name, after=after, since=since)

    def make_bucket(self, bucket: str) -> None:
        """Create *bucket* unless it is there."""
        with translated(f"create bucket {bucket!r}"):
            try:
                self._s3.head_bucket(Bucket=bucket)
            except self._s3.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                    raise
                region = self._s3.meta.region_name
                where = (
                    {}
                    if region in (None, "us-east-1")
                    else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                )
                self._s3.create_bucket(Bucket=bucket, **where)

    def upload(self, files: LocalFiles, s3_uri: str, *, on_bytes: Callable[[int], None] = lambda _: None) -> Uploaded:
        """Copy *files* below *s3_uri*; what is there already is not sent again. See :func:`upload_files`.

        Raises:
            SpecError: A file changes meanwhile.
            LaunchError: S3 refused.
        """
        with translated(f"take files into {s3_uri}"):
            return upload_files(self._s3, files, s3_uri, on_bytes=on_bytes)

    def download(self, s3_uri: str) -> bytes:
        """Return the object at *s3_uri*.

        Raises:
            FileNotFoundError: There is none.
            LaunchError: S3 refused.
        """
        bucket, key = split_s3_uri(s3_uri)
        with translated(f"read {s3_uri}"):
            try:
                return bytes(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            except (self._s3.exceptions.NoSuchKey, self._s3.exceptions.NoSuchBucket) as error:
                raise FileNotFoundError(s3_uri) from error
