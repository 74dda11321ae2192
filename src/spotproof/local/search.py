"""Search for training jobs: a request's expression over their descriptions. Pure.

Source: the API model's documentation of Filter, NestedFilters, SearchExpression and SearchRequest.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from spotproof.local.tokens import make_token, parse_token
from spotproof.local.validate import find_members
from spotproof.local.wire import ValidationException

__all__ = ["build_results"]

Record = Mapping[str, Any]
Condition = Callable[[Record], bool]

_DEFAULT_MAX_RESULTS: Final = 10
_MAX_CONDITIONS: Final = 50
_TIMES: Final = ("CreationTime", "LastModifiedTime", "TrainingStartTime", "TrainingEndTime")
_MAPS: Final = ("HyperParameters", "Environment", "Metrics", "Tags")
"""What follows their name is a key, dots and all."""
_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}


def build_results(records: Iterable[Record], request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a request that the API model allows.

    Args:
        records: Descriptions of all jobs, with their Tags.
        request: Of the operation Search.

    Raises:
        ValidationException: It asks for what is not here, or for what has no sense.
    """
    if request["Resource"] != "TrainingJob":
        raise ValidationException(
            f"The local platform searches for Resource TrainingJob only, not for {request['Resource']}."
        )
    is_wanted = _parse_expression(request.get("SearchExpression", {}))
    key = _parse_order(request.get("SortBy", "LastModifiedTime"))
    start = _parse_start(request)
    found = sorted(
        (record for record in records if is_wanted(record)),
        key=key,
        reverse=request.get("SortOrder", "Descending") == "Descending",
    )
    end = start + request.get("MaxResults", _DEFAULT_MAX_RESULTS)
    members = find_members("sagemaker", "TrainingJob")
    answer: dict[str, Any] = {
        "Results": [
            {"TrainingJob": {name: value for name, value in record.items() if name in members}}
            for record in found[start:end]
        ],
        "TotalHits": {"Value": len(found), "Relation": "EqualTo"},
    }
    if end < len(found):
        answer["NextToken"] = make_token(end)
    return answer


def _parse_start(request: Mapping[str, Any]) -> int:
    try:
        start = parse_token(request["NextToken"]) if "NextToken" in request else 0
    except ValueError:
        start = None
    if type(start) is not int or start < 0:
        raise ValidationException("Invalid pagination token.")
    return start


def _parse_order(name: str) -> Callable[[Record], tuple[bool, Any, str]]:
    _check_property(name)

    def key(record: Record) -> tuple[bool, Any, str]:
        value = next((item for item in _values(record, name) if isinstance(item, (int, float, str))), None)
        # Numbers and texts do not compare; one property is always the one or the other.
        return value is not None, ("" if value is None else value), record["TrainingJobName"]

    return key


def _parse_expression(expression: Mapping[str, Any]) -> Condition:
    if sum(1 for _ in _all_filters(expression)) > _MAX_CONDITIONS:
        raise ValidationException(f"A search expression may have {_MAX_CONDITIONS} conditions.")
    if sum(1 for item in _all_filters(expression) if item.get("Operator") == "Contains") > 1:
        raise ValidationException("'CONTAINS' operator usage limit of 1 exceeded.")
    return _combine(expression)


def _all_filters(expression: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from expression.get("Filters", ())
    for nested in expression.get("NestedFilters", ()):
        yield from nested["Filters"]
    for inner in expression.get("SubExpressions", ()):
        yield from _all_filters(inner)


def _combine(expression: Mapping[str, Any]) -> Condition:
    conditions = [
        *(_parse_filter(item) for item in expression.get("Filters", ())),
        *(_parse_nested(item) for item in expression.get("NestedFilters", ())),
        *(_combine(item) for item in expression.get("SubExpressions", ())),
    ]
    combine = any if expression.get("Operator") == "Or" and conditions else all
    return lambda record: combine(condition(record) for condition in conditions)


def _parse_nested(nested: Mapping[str, Any]) -> Condition:
    """One and the same member of a list has to satisfy all of the filters."""
    name = nested["NestedPropertyName"]
    _check_property(name)
    conditions = []
    for item in nested["Filters"]:
        inner = item["Name"].removeprefix(f"{name}.")
        conditions.append(_parse_test(item, inner))
    return lambda record: any(all(condition(value) for condition in conditions) for value in _values(record, name))


def _parse_filter(item: Mapping[str, Any]) -> Condition:
    _check_property(item["Name"])
    return _parse_test(item, item["Name"])


def _parse_test(item: Mapping[str, Any], name: str) -> Condition:
    """Return whether a record, or a part of one, satisfies one filter."""
    kind, wanted = item.get("Operator", "Equals"), item.get("Value")
    if kind in ("Exists", "NotExists"):
        return lambda record: bool(list(_values(record, name))) == (kind == "Exists")
    if wanted is None:
        raise ValidationException(f"The filter on {item['Name']} has operator {kind} and no value.")
    text = wanted
    if kind in _ORDERS:
        number = _number(text, is_time=name in _TIMES)
        if number is None:
            raise ValidationException(f"{kind} on {item['Name']} needs a number or a time, not {text!r}.")
        compare = _ORDERS[kind]
        return lambda record: any(
            compare(found, number) for found in map(_number, _values(record, name)) if found is not None
        )
    if kind == "Contains":
        return lambda record: any(text in value for value in _values(record, name) if isinstance(value, str))
    if kind == "In":
        choices = [part.strip() for part in text.split(",")]
        return lambda record: any(value in choices for value in _values(record, name))
    number = _number(text, is_time=name in _TIMES)

    def equals(record: Record) -> bool:
        return any(_is_equal(value, text, number) for value in _values(record, name))

    return equals if kind == "Equals" else lambda record: not equals(record)


def _is_equal(value: Any, text: str, number: float | None) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    if isinstance(value, str):
        return value == text or (number is not None and _number(value) == number)
    return isinstance(value, (int, float)) and value == number


def _check_property(name: str) -> None:
    first = name.partition(".")[0]
    if first != "Metrics" and first not in find_members("sagemaker", "TrainingJob"):
        raise ValidationException(f"{name!r} is not a property of a TrainingJob that can be searched for.")


def _values(record: Any, name: str) -> Iterator[Any]:
    """Yield what a record has at a path of names; of a list, what each of its items has."""
    if isinstance(record, list):
        for item in record:
            yield from _values(item, name)
        return
    if not isinstance(record, Mapping):
        return
    first, _, rest = name.partition(".")
    if first == "Metrics":
        yield from (item["Value"] for item in record.get("FinalMetricDataList", ()) if item["MetricName"] == rest)
    elif first == "Tags" and rest:
        yield from (item["Value"] for item in record.get("Tags", ()) if item["Key"] == rest)
    elif first in record:
        value = record[first]
        if not rest:
            yield from value if isinstance(value, list) else [value]
        elif first in _MAPS:
            yield from [value[rest]] if rest in value else []
        else:
            yield from _values(value, rest)


def _number(value: Any, *, is_time: bool = False) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return _seconds(value) if is_time and isinstance(value, str) else None


def _seconds(text: str) -> float | None:
    """Return the time that ``YYYY-mm-dd'T'HH:MM:SS`` says, in UTC unless it says otherwise."""
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)).timestamp()
