"""Reading a log as it grows: each line once, over new streams and paging."""

from typing import Any

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

    def describe_log_streams(self, *, logStreamNamePrefix: str, **_: Any) -> dict[str, Any]:
        if not self.streams:
            raise NotFound
        names = sorted(name for name in self.streams if name.startswith(logStreamNamePrefix))
        return {"logStreams": [{"logStreamName": name} for name in names]}

    def get_log_events(self, *, logStreamName: str, nextToken: str = "0", **_: Any) -> dict[str, Any]:
        begin = int(nextToken)
        page = self.streams[logStreamName][begin : begin + 2]
        events = [{"timestamp": at, "message": text} for at, text in page]
        return {"events": events, "nextForwardToken": str(begin + len(page))}


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
