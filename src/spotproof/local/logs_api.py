"""CloudWatch Logs, as clients call it: the reading operations over the one group that training jobs write to."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from spotproof.local.filter_pattern import parse_filter_pattern
from spotproof.local.identity import ACCOUNT
from spotproof.local.logs import LOG_GROUP, LogReader, Place
from spotproof.local.tokens import make_token, parse_token
from spotproof.local.validate import validate
from spotproof.local.wire import (
    InvalidParameterException,
    ResourceNotFoundException,
    ValidationException,
    find_operation,
)

__all__ = ["LogsApi"]

_STREAMS_PER_PAGE: Final = 50
_EVENTS_PER_PAGE: Final = 10000
Operation = Callable[[dict[str, Any], str], dict[str, Any]]


class LogsApi:
    """DescribeLogGroups, DescribeLogStreams, GetLogEvents and FilterLogEvents.

    The group is there once a job has written a line, as in AWS.
    """

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._operations: dict[str, Operation] = {
            "DescribeLogGroups": self._describe_groups,
            "DescribeLogStreams": self._describe_streams,
            "GetLogEvents": self._get_events,
            "FilterLogEvents": self._filter_events,
        }

    def call(self, operation: str, body: Any, region: str) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            WireError: It is refused.
        """
        implementation = find_operation(self._operations, operation)
        try:
            request = validate("logs", operation, body)
        except ValidationException as error:
            raise InvalidParameterException(error.message) from None
        return implementation(request, region)

    def _describe_groups(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        if "logGroupNamePrefix" in request and "logGroupNamePattern" in request:
            raise InvalidParameterException("LogGroup name prefix and LogGroup name pattern are mutually exclusive.")
        is_wanted = (
            LOG_GROUP.startswith(request.get("logGroupNamePrefix", ""))
            and request.get("logGroupNamePattern", "").lower() in LOG_GROUP.lower()
            and request.get("logGroupClass", "STANDARD") == "STANDARD"
            and LOG_GROUP in request.get("logGroupIdentifiers", [LOG_GROUP])
        )
        if not is_wanted or not self._reader.has_streams():
            return {"logGroups": []}
        created_ms = min(self._reader.describe(name)["creationTime"] for name in self._reader.streams())
        arn = _group_arn(region)
        group = {
            "logGroupName": LOG_GROUP,
            "creationTime": created_ms,
            "metricFilterCount": 0,
            "arn": f"{arn}:*",
            "logGroupArn": arn,
            "storedBytes": 0,
            "logGroupClass": "STANDARD",
        }
        return {"logGroups": [group]}

    def _describe_streams(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        self._check_group(request)
        is_by_time = request.get("orderBy") == "LastEventTime"
        if is_by_time and "logStreamNamePrefix" in request:
            raise InvalidParameterException("Cannot order by LastEventTime with a logStreamNamePrefix.")
        names = self._reader.streams(request.get("logStreamNamePrefix", ""))
        if is_by_time:
            last = {name: self._reader.describe(name).get("lastEventTimestamp", 0) for name in names}
            names.sort(key=lambda name: (last[name], name))
        if request.get("descending"):
            names.reverse()
        start = _parse_position(request)
        end = start + request.get("limit", _STREAMS_PER_PAGE)
        streams = [
            {**self._reader.describe(name), "arn": f"{_group_arn(region)}:log-stream:{name}"}
            for name in names[start:end]
        ]
        answer: dict[str, Any] = {"logStreams": streams}
        if end < len(names):
            answer["nextToken"] = make_token(end)
        return answer

    def _get_events(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        self._check_group(request)
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

    def _filter_events(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        self._check_group(request)
        names = self._searched(request)
        try:
            is_wanted = parse_filter_pattern(request.get("filterPattern", ""))
        except ValueError as error:
            raise InvalidParameterException(str(error)) from None
        limit = request.get("limit", _EVENTS_PER_PAGE)
        found = self._reader.search(
            names,
            is_wanted,
            start_ms=request.get("startTime", 0),
            end_ms=request.get("endTime"),
            after=_parse_place(request),
            limit=limit + 1,
        )
        answer: dict[str, Any] = {"events": [event for _, event in found[:limit]], "searchedLogStreams": []}
        if len(found) > limit:
            answer["nextToken"] = make_token(found[limit - 1][0])
        return answer

    def _searched(self, request: Mapping[str, Any]) -> list[str]:
        if "logStreamNames" not in request:
            return self._reader.streams(request.get("logStreamNamePrefix", ""))
        if "logStreamNamePrefix" in request:
            raise InvalidParameterException("logStreamNames and logStreamNamePrefix are mutually exclusive.")
        names: list[str] = request["logStreamNames"]
        if set(names) - set(self._reader.streams()):
            raise ResourceNotFoundException("The specified log stream does not exist.")
        return names

    def _check_group(self, request: Mapping[str, Any]) -> None:
        name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
        if (name is None) == (identifier is None):
            raise InvalidParameterException("Give one of logGroupName and logGroupIdentifier.")
        group = name or str(identifier).rpartition(":")[2]
        if group != LOG_GROUP or not self._reader.has_streams():
            raise ResourceNotFoundException("The specified log group does not exist.")


def _group_arn(region: str) -> str:
    return f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{LOG_GROUP}"


def _parse_position(request: Mapping[str, Any]) -> int:
    position = _read_token(request, 0)
    if type(position) is not int or position < 0:
        raise _invalid_token()
    return position


def _parse_place(request: Mapping[str, Any]) -> Place | None:
    match _read_token(request, None):
        case None:
            return None
        case [int(at_ms), str(stream), int(offset)]:
            return at_ms, stream, offset
    raise _invalid_token()


def _read_token(request: Mapping[str, Any], default: Any) -> Any:
    if "nextToken" not in request:
        return default
    try:
        return parse_token(request["nextToken"])
    except ValueError:
        raise _invalid_token() from None


def _invalid_token() -> InvalidParameterException:
    return InvalidParameterException("The specified nextToken is invalid.")
