"""CloudWatch, as clients call it: the metrics that training jobs print, read from their logs by MetricDefinitions.

Nothing is kept beside the logs. So a job's metrics are there with its first line, outlive the server, and go with the
job. Source of the rules: the API model's documentation of the three operations.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from spotproof.local.jobs import Jobs
from spotproof.local.logs import LogReader
from spotproof.local.metrics import compile_definitions, find_values
from spotproof.local.tokens import make_token, parse_token
from spotproof.local.validate import validate
from spotproof.local.wire import InvalidParameterCombination, InvalidParameterValue, find_operation

__all__ = ["NAMESPACE", "MetricsApi"]

NAMESPACE: Final = "/aws/sagemaker/TrainingJobs"
_DIMENSION: Final = "TrainingJobName"
_MINUTE_SECONDS: Final = 60
_MAX_DATAPOINTS: Final = 1440
_METRICS_PER_PAGE: Final = 500
_STATISTICS: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "SampleCount": len,
    "Average": lambda values: math.fsum(values) / len(values),
    "Sum": math.fsum,
    "Minimum": min,
    "Maximum": max,
}
Buckets = Mapping[float, Sequence[float]]


class MetricsApi:
    """GetMetricStatistics, GetMetricData and ListMetrics over the metrics of one platform's jobs."""

    def __init__(self, jobs: Jobs, reader: LogReader) -> None:
        self._jobs, self._reader = jobs, reader
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "GetMetricStatistics": self._get_statistics,
            "GetMetricData": self._get_data,
            "ListMetrics": self._list,
        }

    def call(self, operation: str, body: Any) -> dict[str, Any]:
        """Return the answer to one request, as the API model has it; times are seconds since 1970.

        Raises:
            WireError: It is refused.
        """
        implementation = find_operation(self._operations, operation)
        return implementation(validate("cloudwatch", operation, body))

    def _get_statistics(self, request: dict[str, Any]) -> dict[str, Any]:
        if "ExtendedStatistics" in request:
            raise InvalidParameterValue(
                f"The local platform has no percentiles; Statistics may be {', '.join(_STATISTICS)}."
            )
        if not request.get("Statistics"):
            raise InvalidParameterCombination(
                "At least one of the parameters Statistics and ExtendedStatistics must be specified."
            )
        start, end, period = _parse_span(request, request["Period"])
        num_datapoints = math.ceil((end - start) / period)
        if num_datapoints > _MAX_DATAPOINTS:
            raise InvalidParameterCombination(
                f"You have requested up to {num_datapoints:,} datapoints, which exceeds the limit of "
                f"{_MAX_DATAPOINTS:,}. You may reduce the datapoints requested by increasing Period, or decreasing the "
                "time range."
            )
        buckets = self._buckets(request, start, end, period) if request.get("Unit", "None") == "None" else {}
        points = [
            {
                "Timestamp": at,
                **{name: float(_STATISTICS[name](values)) for name in request["Statistics"]},
                "Unit": "None",
            }
            for at, values in buckets.items()
        ]
        return {"Label": request["MetricName"], "Datapoints": points}

    def _get_data(self, request: dict[str, Any]) -> dict[str, Any]:
        is_descending = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        results = []
        for query in request["MetricDataQueries"]:
            if "MetricStat" not in query:
                raise InvalidParameterValue(
                    f"Query {query['Id']}: the local platform has no expressions; give a MetricStat."
                )
            stat, metric = query["MetricStat"], query["MetricStat"]["Metric"]
            if stat["Stat"] not in _STATISTICS:
                raise InvalidParameterValue(
                    f"Query {query['Id']}: the local platform has no statistic {stat['Stat']}, only "
                    f"{', '.join(_STATISTICS)}."
                )
            start, end, period = _parse_span(request, stat["Period"])
            found = sorted(self._buckets(metric, start, end, period).items(), reverse=is_descending)
            if query.get("ReturnData", True):
                results.append(
                    {
                        "Id": query["Id"],
                        "Label": query.get("Label", metric.get("MetricName", "")),
                        "Timestamps": [at for at, _ in found],
                        "Values": [float(_STATISTICS[stat["Stat"]](values)) for _, values in found],
                        "StatusCode": "Complete",
                    }
                )
        return {"MetricDataResults": results, "Messages": []}

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        wanted = request.get("Dimensions", [])
        found = [
            {"Namespace": NAMESPACE, "MetricName": name, "Dimensions": [{"Name": _DIMENSION, "Value": job}]}
            for job, name in self._metrics()
            if request.get("MetricName", name) == name
            and all(item["Name"] == _DIMENSION and item.get("Value", job) == job for item in wanted)
        ]
        if request.get("Namespace", NAMESPACE) != NAMESPACE:
            found = []
        try:
            start = parse_token(request["NextToken"]) if "NextToken" in request else 0
        except ValueError:
            start = None
        if type(start) is not int or start < 0:
            raise InvalidParameterValue("The specified NextToken is invalid.")
        end = start + _METRICS_PER_PAGE
        answer: dict[str, Any] = {"Metrics": found[start:end]}
        return answer | ({"NextToken": make_token(end)} if end < len(found) else {})

    def _metrics(self) -> Iterator[tuple[str, str]]:
        """Yield job and name of each metric that has a value."""
        for summary in self._jobs.summaries():
            description = self._jobs.describe(summary["TrainingJobName"])
            for item in (description or {}).get("FinalMetricDataList", ()):
                yield summary["TrainingJobName"], item["MetricName"]

    def _buckets(self, metric: Mapping[str, Any], start: float, end: float, period: int) -> Buckets:
        """Return a metric's values by the begin of the period that each is in; *end* is not included."""
        buckets: defaultdict[float, list[float]] = defaultdict(list)
        for at, value in self._values(metric):
            begin = at // period * period
            if start <= begin < end:
                buckets[begin].append(value)
        return dict(sorted(buckets.items()))

    def _values(self, metric: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
        dimensions = {item["Name"]: item["Value"] for item in metric.get("Dimensions", ())}
        job = dimensions.get(_DIMENSION)
        if metric.get("Namespace") != NAMESPACE or job is None or len(dimensions) != 1:
            return
        description = self._jobs.describe(job)
        if description is None:
            return
        definitions: Iterable[Mapping[str, str]] = description["AlgorithmSpecification"].get("MetricDefinitions", ())
        patterns = compile_definitions(item for item in definitions if item["Name"] == metric.get("MetricName"))
        if not patterns:
            return
        for stream in self._reader.streams(f"{job}/"):
            for at_ms, line in self._reader.messages(stream):
                for _, value in find_values(patterns, line):
                    yield at_ms / 1000, value


def _parse_span(request: Mapping[str, Any], period: int) -> tuple[float, float, int]:
    """Return begin, end and period in seconds; both times go down to the whole minute, as CloudWatch's do."""
    start, end = (float(request[name]) // _MINUTE_SECONDS * _MINUTE_SECONDS for name in ("StartTime", "EndTime"))
    if start >= end:
        raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
    if period % _MINUTE_SECONDS:
        raise InvalidParameterValue(
            f"The parameter Period must be a multiple of {_MINUTE_SECONDS}, as the metrics of training jobs are."
        )
    return start // period * period, end, period
