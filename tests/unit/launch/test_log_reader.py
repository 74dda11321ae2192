"""Reading a log as it grows: each line once, over new streams, paging and interruptions, in the order of time."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from spotproof import SpecError
from spotproof.launch import LogLine, LogMerge, ServiceUnreachable, format_position, parse_position
from spotproof.launch.logs import LogReader


class NotFound(Exception):
    """What boto3 raises while no job has printed."""


class FakeLogs:
    """CloudWatch Logs with pages of two events; tokens are offsets and repeat at the end."""

    class exceptions:
        """As on a boto3 client."""

        ResourceNotFoundException = NotFound

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[int, str]]] = {}
        self.is_away: set[str] = set()

    def describe_log_streams(self, *, logStreamNamePrefix: str, **_: Any) -> dict[str, Any]:
        if not self.streams:
            raise NotFound
        names = sorted(name for name in self.streams if name.startswith(logStreamNamePrefix))
        return {"logStreams": [{"logStreamName": name} for name in names]}

    def get_log_events(
        self, *, logStreamName: str, nextToken: str | None = None, startTime: int = 0, **_: Any
    ) -> dict[str, Any]:
        if logStreamName in self.is_away:
            raise EndpointConnectionError(endpoint_url="https://logs")
        events = self.streams[logStreamName]
        older = sum(at < startTime for at, _ in events)
        begin = int(nextToken) if nextToken is not None else older
        page = events[begin : begin + 2]
        found = [{"timestamp": at, "message": text} for at, text in page]
        return {"events": found, "nextForwardToken": str(begin + len(page))}


def test_nothing_printed_yet() -> None:
    """A job without a log stream has no lines; that is no error."""
    assert LogReader(FakeLogs(), "job").read_new() == []


def test_each_line_comes_once_in_order_of_time() -> None:
    """Pages are followed to their end, hosts are merged by time, and a second reading gives what is new only."""
    logs = FakeLogs()
    logs.streams["job/algo-1-100"] = [(1000, "a"), (3000, "c"), (5000, "e")]
    logs.streams["job/algo-2-100"] = [(2000, "b"), (4000, "d")]
    logs.streams["job-2/algo-1-100"] = [(1500, "of another job")]
    reader = LogReader(logs, "job")

    assert [line.message for line in reader.read_new()] == ["a", "b", "c", "d", "e"]
    assert reader.read_new() == []

    logs.streams["job/algo-1-100"].append((6000, "f"))
    logs.streams["job/algo-1-200"] = [(7000, "after the restart")]
    again = reader.read_new()

    assert [(line.host, line.message) for line in again] == [("algo-1", "f"), ("algo-1", "after the restart")]
    assert again[0].at.timestamp() == 6.0


def test_an_outage_loses_no_line() -> None:
    """What was read of one host before another did not answer comes at the next reading."""
    logs = FakeLogs()
    logs.streams["job/algo-1-100"] = [(1000, "a")]
    logs.streams["job/algo-2-100"] = [(2000, "b")]
    logs.is_away = {"job/algo-2-100"}
    reader = LogReader(logs, "job")

    with pytest.raises(ServiceUnreachable):
        reader.read_new()
    logs.is_away = set()

    assert [line.message for line in reader.read_new()] == ["a", "b"]


def test_since_leaves_out_what_is_older() -> None:
    """Lines of that very moment are in."""
    logs = FakeLogs()
    logs.streams["job/algo-1-100"] = [(1000, "a"), (2000, "b"), (3000, "c")]

    reader = LogReader(logs, "job", since=datetime.fromtimestamp(2, timezone.utc))

    assert [line.message for line in reader.read_new()] == ["b", "c"]


@given(
    hosts=st.lists(st.lists(st.integers(1, 12), max_size=12), min_size=1, max_size=3),
    cut=st.integers(0, 40),
)
def test_a_log_goes_on_exactly_behind_any_line(hosts: list[list[int]], cut: int) -> None:
    """Whatever the times, many lines of one millisecond among them: read to a line, and from its token to the end."""
    logs = FakeLogs()
    for number, times in enumerate(hosts, start=1):
        lines = [(at, f"{number}-{index}") for index, at in enumerate(sorted(times))]
        logs.streams[f"job/algo-{number}-100"] = lines

    def read(token: str | None) -> list[tuple[str, str]]:
        position = parse_position(token) if token is not None else None
        merge = LogMerge(patience=timedelta(0), after=position)
        merge.add(LogReader(logs, "job", after=position).read_new())
        now = datetime.now(timezone.utc)
        return [(line.message, format_position(merge.position)) for line in merge.release(now, is_over=True)]

    whole = read(None)
    assert len(whole) == sum(map(len, hosts))
    if cut < len(whole):
        behind = read(whole[cut][1])
        assert [text for text, _ in behind] == [text for text, _ in whole[cut + 1 :]]


@pytest.mark.parametrize("token", ["", "abc", "!!!", "eJwDAAAAAAE", "x" * 5000, "ä"])
def test_a_token_that_is_none(token: str) -> None:
    """It is refused with what to do, whatever it is."""
    with pytest.raises(SpecError, match="no token of a log"):
        parse_position(token)


def line(seconds: float, host: str, text: str) -> LogLine:
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return LogLine(at=at, host=host, message=text, stream=f"{host}-100")


def test_a_late_host_is_waited_for() -> None:
    """Lines are held until every host has shown a newer one, or for the patience, and no longer."""
    merge = LogMerge(patience=timedelta(seconds=5))
    now = datetime.fromtimestamp(12, timezone.utc)

    def released(now: datetime = now) -> list[str]:
        return [each.message for each in merge.release(now)]

    merge.add([line(10, "algo-1", "a"), line(11, "algo-1", "c"), line(9, "algo-2", "0")])
    assert released() == ["0"]
    merge.add([line(10.5, "algo-2", "b")])
    assert released() == ["a", "b"]
    assert released(now + timedelta(seconds=3.9)) == []
    assert released(now + timedelta(seconds=4)) == ["c"]
    merge.add([line(10.6, "algo-2", "too late")])
    assert released(now + timedelta(seconds=4)) == ["too late"]


def test_one_host_waits_for_nobody() -> None:
    """What is there goes at once."""
    merge = LogMerge(patience=timedelta(hours=1))
    merge.add([line(10, "algo-1", "a"), line(10, "algo-1", "b")])
    assert [each.message for each in merge.release(datetime.fromtimestamp(10, timezone.utc))] == ["a", "b"]
