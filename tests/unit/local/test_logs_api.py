"""CloudWatch Logs: groups, streams, events, filters, tokens and errors as documented."""

import pytest

from spotproof.local.filter_pattern import parse_filter_pattern
from spotproof.local.logs import LogReader, LogWriter
from spotproof.local.logs_api import LogsApi
from spotproof.local.wire import InvalidParameterException, ResourceNotFoundException, UnknownOperationException

GROUP = "/aws/sagemaker/TrainingJobs"


@pytest.fixture
def call(tmp_path):
    """Call an operation over three streams of two jobs."""
    lines = {
        "one/algo-1-1": [(1, "one a"), (3, "one ERROR b"), (5, "one c")],
        "one/algo-2-1": [(2, "two a"), (4, "two ERROR b")],
        "other/algo-1-1": [(6, "other a")],
    }
    for stream, events in lines.items():
        writer = LogWriter(tmp_path / f"{stream}.log")
        for seconds, message in events:
            writer.write(f"{message}\n".encode(), seconds)
        writer.close()
    api = LogsApi(LogReader(tmp_path))

    def call(operation, **request):
        if operation not in ("DescribeLogGroups",):
            request.setdefault("logGroupName", GROUP)
        return api.call(operation, request, "eu-west-1")

    return call


def messages(answer):
    return [event["message"] for event in answer["events"]]


def test_groups(call, tmp_path):
    """The one group with its ARN, found by prefix or pattern; before the first line there is none."""
    (group,) = call("DescribeLogGroups")["logGroups"]

    assert group["logGroupName"] == GROUP
    assert group["arn"] == f"arn:aws:logs:eu-west-1:123456789012:log-group:{GROUP}:*"
    assert group["creationTime"] == 1000
    assert call("DescribeLogGroups", logGroupNamePrefix="/aws/sage")["logGroups"]
    assert call("DescribeLogGroups", logGroupNamePattern="trainingjobs")["logGroups"]
    assert call("DescribeLogGroups", logGroupNamePrefix="/aws/lambda")["logGroups"] == []
    assert LogsApi(LogReader(tmp_path / "none")).call("DescribeLogGroups", {}, "x") == {"logGroups": []}
    with pytest.raises(InvalidParameterException):
        call("DescribeLogGroups", logGroupNamePrefix="a", logGroupNamePattern="b")


def test_streams(call):
    """By name, by time of the last event, backwards, in pages."""

    def names(**request):
        return [stream["logStreamName"] for stream in call("DescribeLogStreams", **request)["logStreams"]]

    assert names() == ["one/algo-1-1", "one/algo-2-1", "other/algo-1-1"]
    assert names(logStreamNamePrefix="one/") == ["one/algo-1-1", "one/algo-2-1"]
    assert names(logStreamNamePrefix="o") == names()
    assert names(logStreamNamePrefix="../") == []
    assert names(orderBy="LastEventTime") == ["one/algo-2-1", "one/algo-1-1", "other/algo-1-1"]
    assert names(orderBy="LastEventTime", descending=True)[0] == "other/algo-1-1"
    first = call("DescribeLogStreams", limit=2)
    assert len(first["logStreams"]) == 2
    assert names(limit=2, nextToken=first["nextToken"]) == ["other/algo-1-1"]
    assert "nextToken" not in call("DescribeLogStreams", limit=3)
    assert first["logStreams"][0]["arn"].endswith(":log-stream:one/algo-1-1")
    with pytest.raises(InvalidParameterException, match="Cannot order by LastEventTime with a logStreamNamePrefix"):
        call("DescribeLogStreams", orderBy="LastEventTime", logStreamNamePrefix="one/")


def test_filtered_events_of_several_streams_come_in_the_order_of_time(call):
    """All streams, those of a prefix, or those that are named; both ends of the time are inclusive."""
    assert messages(call("FilterLogEvents", logStreamNamePrefix="one/")) == [
        "one a", "two a", "one ERROR b", "two ERROR b", "one c",
    ]  # fmt: skip
    assert messages(call("FilterLogEvents"))[-1] == "other a"
    assert messages(call("FilterLogEvents", logStreamNames=["one/algo-2-1"])) == ["two a", "two ERROR b"]
    assert messages(call("FilterLogEvents", filterPattern="ERROR")) == ["one ERROR b", "two ERROR b"]
    assert messages(call("FilterLogEvents", startTime=2000, endTime=4000)) == ["two a", "one ERROR b", "two ERROR b"]
    ids = [event["eventId"] for event in call("FilterLogEvents")["events"]]
    assert len(set(ids)) == 6


def test_pages_of_filtered_events(call):
    """Pages give every event once, and the last has no token."""
    found, token = [], {}
    for _ in range(4):
        answer = call("FilterLogEvents", limit=2, **token)
        found += messages(answer)
        if "nextToken" not in answer:
            break
        token = {"nextToken": answer["nextToken"]}
    assert found == messages(call("FilterLogEvents"))


@pytest.mark.parametrize(
    ("operation", "request_", "error"),
    [
        ("GetLogEvents", {"logStreamName": "one/none"}, ResourceNotFoundException),
        ("GetLogEvents", {"logStreamName": "one/algo-1-1", "nextToken": "x"}, InvalidParameterException),
        ("GetLogEvents", {"logStreamName": "one/algo-1-1", "limit": 10001}, InvalidParameterException),
        ("GetLogEvents", {}, InvalidParameterException),
        ("GetLogEvents", {"logStreamName": "x", "logGroupName": "/aws/other"}, ResourceNotFoundException),
        ("DescribeLogStreams", {"limit": 51}, InvalidParameterException),
        ("DescribeLogStreams", {"nextToken": "x"}, InvalidParameterException),
        ("DescribeLogStreams", {"logGroupIdentifier": GROUP}, InvalidParameterException),
        ("FilterLogEvents", {"logStreamNames": ["one/none"]}, ResourceNotFoundException),
        ("FilterLogEvents", {"logStreamNames": ["a"], "logStreamNamePrefix": "b"}, InvalidParameterException),
        ("FilterLogEvents", {"filterPattern": "{ $.x = 1 }"}, InvalidParameterException),
        ("FilterLogEvents", {"nextToken": "WzEsIDIsIDNd"}, InvalidParameterException),
        ("PutLogEvents", {}, UnknownOperationException),
    ],
)
def test_refusals(call, operation, request_, error):
    """What the service refuses is refused with its code."""
    with pytest.raises(error):
        call(operation, **request_)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("", True),
        ("ERROR", True),
        ("error", False),
        ("ERROR disk", True),
        ("ERROR net", False),
        ('"disk full"', True),
        ('"full disk"', False),
        ("?net ?disk", True),
        ("?net ?none", False),
        ("ERROR -disk", False),
        ("-net", True),
        ("%d[iu]sk%", True),
        ("%^disk%", False),
        ("step=3", True),
    ],
)
def test_filter_patterns(pattern, wanted):
    """Terms must all be there, optional ones one of them, excluded ones none; case counts."""
    assert parse_filter_pattern(pattern)("ERROR: disk full at step=3") is wanted


@pytest.mark.parametrize("pattern", ["{ $.a = 1 }", "[a, b]", '"open', "%[%", "a(b"])
def test_patterns_that_cannot_be_read(pattern):
    """JSON, columns and broken patterns are refused, not ignored."""
    with pytest.raises(ValueError, match=r"Invalid|text only"):
        parse_filter_pattern(pattern)
