"""A job's log, read as it grows: all hosts, over all restarts, and from any position on."""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from spotproof.errors import SpecError
from spotproof.launch.failures import translated

__all__ = ["LOG_GROUP", "LogLine", "LogReader", "Position", "format_position", "parse_position"]

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_MAX_POSITION_BYTES: Final = 2**20

Position = Mapping[str, tuple[int, int]]
"""By stream, ``algo-1-1700000000``: the time of the last line that was taken, in milliseconds since 1970, and how many
lines of that very millisecond were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine:
    """One line a container printed."""

    at: datetime
    """When the service took it in, UTC."""
    host: str
    """For example ``algo-1``."""
    message: str
    stream: str = ""
    """The stream's name behind the job's."""


class LogReader:
    """Return each line of a job's log once, in the order of time within one reading.

    A host that comes back after a reclaim may write to its old stream or to a new one: the service does not say, so
    streams are looked for at every reading.

    Args:
        client: boto3's, of CloudWatch Logs.
        job_name: Whose log it is.
        after: A position to go on behind; None for the beginning.
        since: Leave out what is older.

    Source: stream names ``<job>/algo-<n>-<time>``, AWS "Log Groups and Streams that Amazon SageMaker AI Sends to
    CloudWatch".
    """

    def __init__(
        self, client: Any, job_name: str, *, after: Position | None = None, since: datetime | None = None
    ) -> None:
        self._client = client
        self._job_name = job_name
        self._tokens: dict[str, str] = {}
        self._after = dict(after or {})
        self._since_ms = 0 if since is None else int(since.timestamp() * 1000)

    def read_new(self) -> list[LogLine]:
        """Return the lines that came in since the last call; none if the job has not printed yet.

        Raises:
            ServiceUnreachable: Nothing answers. The next call gives what this one would have.
            LaunchError: The service refuses.
        """
        lines: list[LogLine] = []
        tokens, taken = dict(self._tokens), dict(self._after)
        with translated(f"give the log of {self._job_name!r}"):
            for name in self._streams():
                lines.extend(self._read_stream(name, tokens, taken))
        self._tokens, self._after = tokens, taken
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

    def _read_stream(self, name: str, tokens: dict[str, str], taken: dict[str, tuple[int, int]]) -> list[LogLine]:
        stream = name.rpartition("/")[2]
        host = stream.rpartition("-")[0]
        start_ms, num_taken = taken.get(stream, (self._since_ms, 0))
        if start_ms < self._since_ms:
            start_ms, num_taken = self._since_ms, 0
        lines: list[LogLine] = []
        while True:
            token = tokens.get(name)
            # The start counts at the first reading only; later ones begin where the token says.
            more: dict[str, Any] = {"nextToken": token} if token else {"startTime": start_ms} if start_ms else {}
            answer = self._client.get_log_events(logGroupName=LOG_GROUP, logStreamName=name, startFromHead=True, **more)
            for event in answer["events"]:
                if event["timestamp"] == start_ms and num_taken > 0:
                    num_taken -= 1  # it was taken before the position
                    taken[stream] = (start_ms, num_taken)
                    continue
                at = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
                lines.append(LogLine(at=at, host=host, message=event["message"], stream=stream))
            tokens[name] = answer["nextForwardToken"]
            # The end is where the token repeats; an empty page alone can also stand before more events.
            if answer["nextForwardToken"] == token:
                return lines


def format_position(position: Position) -> str:
    """Return *position* as one word that a program can keep."""
    plain = json.dumps({stream: list(place) for stream, place in position.items()}, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(plain.encode(), 9)).decode().rstrip("=")


def parse_position(text: str) -> dict[str, tuple[int, int]]:
    """Return the position that :func:`format_position` gave as *text*.

    Raises:
        SpecError: It is none.
    """
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        plain = zlib.decompressobj().decompress(packed, _MAX_POSITION_BYTES)
        position = {stream: (int(at_ms), int(num)) for stream, (at_ms, num) in json.loads(plain).items()}
    except (ValueError, TypeError, AttributeError, zlib.error, RecursionError) as error:
        shown = text if len(text) <= 40 else text[:37] + "…"
        raise SpecError(
            f"--after {shown}: this is no token of a log.",
            why="It was cut short or altered.",
            do="Give the `token` of a line that `spotproof logs JOB --json` printed.",
        ) from error
    return position
