"""CloudWatch's metrics out of logs: which values are in which period, and whose."""

import pytest

from spotproof.local.logs import LogReader
from spotproof.local.metrics_api import NAMESPACE, MetricsApi

DIMENSIONS = [{"Name": "TrainingJobName", "Value": "job"}]
LINES = {1: ["60000 loss=1", "119999 loss=3", "120000 loss=10 acc=1"], 2: ["61000 loss=5", "180000 loss=20"]}


class _Jobs:
    """One job, as far as metrics ask for it."""

    def describe(self, name):
        definitions = [{"Name": name, "Regex": rf"{name}=(\d+)"} for name in ("loss", "acc")]
        return {"AlgorithmSpecification": {"MetricDefinitions": definitions}} if name == "job" else None


@pytest.fixture
def api(tmp_path):
    """Over the logs of a job of two hosts."""
    (tmp_path / "job").mkdir()
    for host, lines in LINES.items():
        (tmp_path / "job" / f"algo-{host}-0.log").write_text("".join(f"{line}\n" for line in lines))
    return MetricsApi(_Jobs(), LogReader(tmp_path))


def points(api, **changes):
    request = {
        "Namespace": NAMESPACE,
        "MetricName": "loss",
        "Dimensions": DIMENSIONS,
        "StartTime": 0,
        "EndTime": 600,
        "Period": 60,
        "Statistics": ["Sum"],
    }
    answer = api.call("GetMetricStatistics", request | changes)
    return {point["Timestamp"]: point["Sum"] for point in answer["Datapoints"]}


def test_values_are_in_the_period_that_they_came_in(api):
    """Of all hosts; a period includes its first instant and not its last, and so does the span that is asked for."""
    assert points(api) == {60: 9, 120: 10, 180: 20}
    assert points(api, Period=120) == {0: 9, 120: 30}
    assert points(api, StartTime=60, EndTime=180) == {60: 9, 120: 10}
    assert points(api, StartTime=119, EndTime=179.9) == {60: 9}, "times go down to the minute"
    assert points(api, MetricName="acc") == {120: 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"Namespace": "AWS/EC2"},
        {"MetricName": "other"},
        {"Dimensions": []},
        {"Dimensions": [{"Name": "TrainingJobName", "Value": "no-such-job"}]},
        {"Dimensions": [*DIMENSIONS, {"Name": "Host", "Value": "algo-1"}]},
        {"Unit": "Seconds"},
    ],
)
def test_what_no_job_has_measured_has_no_values(api, changes):
    """Each combination of dimensions is a metric of its own."""
    assert points(api, **changes) == {}


@pytest.mark.parametrize(("order", "times"), [("TimestampAscending", [60, 120, 180]), (None, [180, 120, 60])])
def test_data_is_in_the_order_that_is_asked_for(api, order, times):
    """The newest first by default; a query that returns nothing is left out."""
    metric = {"Namespace": NAMESPACE, "MetricName": "loss", "Dimensions": DIMENSIONS}
    query = {"Id": "a", "Label": "mine", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
    request = {"MetricDataQueries": [query, {**query, "Id": "b", "ReturnData": False}], "StartTime": 0, "EndTime": 600}
    (result,) = api.call("GetMetricData", request | ({"ScanBy": order} if order else {}))["MetricDataResults"]
    assert (result["Id"], result["Label"], result["Timestamps"]) == ("a", "mine", times)
    assert dict(zip(result["Timestamps"], result["Values"], strict=True)) == {60: 5, 120: 10, 180: 20}
