"""A job's log, read as it grows: all hosts, over all restarts."""

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

__all__ = ["LOG_GROUP", "LogLine", "LogReader"]

LOG_GROUP = "/aws/sagemaker/TrainingJobs"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine:
    """One line a container printed."""

    at: datetime
    """When the service took it in, UTC."""
    host: str
    """For example ``algo-1``."""
    message: str


class LogReader:
    """Return each line of a job's log once, in the order of time within one reading.

    A host that comes back after a reclaim may write to its old stream or to a new one: the service does not say, so
    streams are looked for at every reading.

    Source: stream names ``<job>/algo-<n>-<time>``, AWS "Log Groups and Streams that Amazon SageMaker AI Sends to
    CloudWatch".
    """

    def __init__(self, client: Any, job_name: str) -> None:
        self._client = client
        self._job_name = job_name
        self._tokens: dict[str, str] = {}

    def read_new(self) -> list[LogLine]:
        """Return the lines that came in since the last call; none if the job has not printed yet."""
        lines: list[LogLine] = []
        for stream in self._streams():
            lines.extend(self._read_stream(stream))
        return sorted(lines, key=lambda line: line.at)

    def _streams(self) -> list[str]:
        names: list[str] = []
        token: dict[str, str] = {}
        while True:
            try:
                answer = self._client.describe_log_streams(
                    logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self._job_name}/", orderBy="LogStreamName", **token
                )
            except self._client.exceptions.ResourceNotFoundException:
                return []  # no job has printed a line yet
            names.extend(stream["logStreamName"] for stream in answer["logStreams"])
            if not answer.get("nextToken") or token.get("nextToken") == answer["nextToken"]:
                return names
            token = {"nextToken": answer["nextToken"]}

    def _read_stream(self, stream: str) -> list[LogLine]:
        host = stream.rpartition("/")[2].rpartition("-")[0]
        lines: list[LogLine] = []
        while True:
            token = self._tokens.get(stream)
            answer = self._client.get_log_events(
                logGroupName=LOG_GROUP,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            for event in answer["events"]:
                at = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
                lines.append(LogLine(at=at, host=host, message=event["message"]))
            self._tokens[stream] = answer["nextForwardToken"]
            # The end is where the token repeats; an empty page alone can also stand before more events.
            if answer["nextForwardToken"] == token:
                return lines
