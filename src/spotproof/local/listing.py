"""ListTrainingJobs: which of the jobs, in which order, how many at once. Pure."""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from spotproof.local.tokens import make_token, parse_token
from spotproof.local.wire import ValidationException

__all__ = ["build_page"]

_DEFAULT_MAX_RESULTS: Final = 10
_KEYS: Final = {"Name": "TrainingJobName", "CreationTime": "CreationTime", "Status": "TrainingJobStatus"}


def build_page(summaries: Iterable[Mapping[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a request that the API model allows.

    The next page begins behind the last job of this one, whatever has been created or has ended meanwhile: a job that
    keeps its place in the order is seen once.

    Raises:
        ValidationException: A time or the page token can't be read.
    """
    order = request.get("SortBy", "CreationTime")
    is_descending = request.get("SortOrder") == "Descending"

    def place(item: Mapping[str, Any]) -> tuple[Any, str]:
        return item[_KEYS[order]], item["TrainingJobName"]

    found: Iterable[Mapping[str, Any]] = summaries
    for is_wanted in _parse_filters(request):
        found = filter(is_wanted, found)
    found = sorted(found, key=place, reverse=is_descending)
    if "NextToken" in request:
        last = _parse_place(request["NextToken"], order)
        found = [item for item in found if (place(item) < last if is_descending else place(item) > last)]
    num_results = request.get("MaxResults", _DEFAULT_MAX_RESULTS)
    page = found[:num_results]
    answer: dict[str, Any] = {
        # Only now: MaxResults comes before StatusEquals, says the API's documentation.
        "TrainingJobSummaries": [
            item for item in page if request.get("StatusEquals") in (None, item["TrainingJobStatus"])
        ]
    }
    if len(found) > num_results:
        answer["NextToken"] = make_token([order, *place(page[-1])])
    return answer


def _parse_place(token: str, order: str) -> tuple[Any, str]:
    try:
        made_for, key, name = parse_token(token)
        is_number = isinstance(key, (int, float)) and not isinstance(key, bool)
        is_key = is_number if order == "CreationTime" else isinstance(key, str)
        if made_for == order and is_key and isinstance(name, str):
            return key, name
    except (ValueError, TypeError):
        pass
    raise ValidationException("Invalid pagination token.")


def _parse_filters(request: Mapping[str, Any]) -> list[Callable[[Mapping[str, Any]], bool]]:
    """Return what a summary has to be; the request's times are read first, so that a bad one is always told."""
    filters: list[Callable[[Mapping[str, Any]], bool]] = []
    for name in ("CreationTime", "LastModifiedTime"):
        after, before = _seconds(request.get(f"{name}After", 0.0)), _seconds(request.get(f"{name}Before", math.inf))
        if after > 0 or before < math.inf:
            filters.append(_between(name, after, before))
    if "NameContains" in request:
        part = request["NameContains"].lower()
        filters.append(lambda item: part in item["TrainingJobName"].lower())
    if "WarmPoolStatusEquals" in request or "TrainingPlanArnEquals" in request:
        filters.append(lambda _: False)
    return filters


def _between(name: str, after: float, before: float) -> Callable[[Mapping[str, Any]], bool]:
    return lambda item: after <= item[name] <= before


def _seconds(value: float | str) -> float:
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise ValidationException(f"{value!r} is not a time.") from None
