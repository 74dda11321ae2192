"""ListTrainingJobs: every job is found once, in order, however the pages are cut and whatever comes meanwhile."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotproof.local.listing import build_page
from spotproof.local.wire import ValidationException

STATUSES = ("InProgress", "Completed", "Failed", "Stopped")
KEYS = {"Name": "TrainingJobName", "CreationTime": "CreationTime", "Status": "TrainingJobStatus"}


def job(name, created_at=0.0, status="Completed"):
    return {
        "TrainingJobName": name,
        "CreationTime": created_at,
        "LastModifiedTime": created_at,
        "TrainingJobStatus": status,
    }


def names(answer):
    return [item["TrainingJobName"] for item in answer["TrainingJobSummaries"]]


@settings(deadline=None)
@given(
    jobs=st.lists(
        st.builds(job, st.from_regex(r"[a-c]{1,3}", fullmatch=True), st.integers(0, 3), st.sampled_from(STATUSES)),
        unique_by=lambda item: item["TrainingJobName"],
        max_size=12,
    ),
    order=st.sampled_from(["Name", "CreationTime", "Status", None]),
    direction=st.sampled_from(["Ascending", "Descending", None]),
    num_results=st.integers(1, 5),
)
def test_pages_give_every_job_once_in_order(jobs, order, direction, num_results):
    """All pages together are the sorted list; only the last has no token."""
    request = {"MaxResults": num_results}
    if order:
        request["SortBy"] = order
    if direction:
        request["SortOrder"] = direction
    found, token = [], None
    for _ in range(len(jobs) + 1):
        answer = build_page(jobs, request | ({"NextToken": token} if token else {}))
        found += names(answer)
        token = answer.get("NextToken")
        if token is None:
            break
        assert len(answer["TrainingJobSummaries"]) == num_results
    key = KEYS[order or "CreationTime"]
    expected = sorted(jobs, key=lambda item: (item[key], item["TrainingJobName"]), reverse=direction == "Descending")
    assert found == [item["TrainingJobName"] for item in expected]


def test_a_job_that_is_created_between_two_pages_moves_none():
    """The newest first: what has come since the first page neither hides a job nor shows one twice."""
    jobs = [job(f"job-{number}", number) for number in range(4)]
    request = {"SortOrder": "Descending", "MaxResults": 2}

    first = build_page(jobs, request)
    second = build_page([*jobs, job("new", 9)], request | {"NextToken": first["NextToken"]})

    assert names(first) + names(second) == ["job-3", "job-2", "job-1", "job-0"]


def test_status_filters_what_is_left_of_the_page():
    """MaxResults comes before StatusEquals, as the API's documentation says: a page may be short, or empty."""
    jobs = [job("a", 1, "Failed"), job("b", 2, "Completed"), job("c", 3, "Failed")]

    first = build_page(jobs, {"MaxResults": 2, "StatusEquals": "Failed"})
    second = build_page(jobs, {"MaxResults": 2, "StatusEquals": "Failed", "NextToken": first["NextToken"]})

    assert (names(first), names(second)) == (["a"], ["c"])
    assert "NextToken" not in second


def test_filters():
    """Names without regard to case; times as numbers or text."""
    jobs = [job("Alpha", 100), job("beta", 200)]

    assert names(build_page(jobs, {"NameContains": "PHA"})) == ["Alpha"]
    assert names(build_page(jobs, {"CreationTimeAfter": 150})) == ["beta"]
    assert names(build_page(jobs, {"CreationTimeBefore": "1970-01-01T00:02:30Z"})) == ["Alpha"]
    assert names(build_page(jobs, {"LastModifiedTimeAfter": 150, "LastModifiedTimeBefore": 160})) == []
    assert names(build_page(jobs, {"WarmPoolStatusEquals": "InUse"})) == []


@pytest.mark.parametrize(
    "change",
    [
        {"NextToken": "nonsense"},
        {"NextToken": "bnVsbA=="},
        {"NextToken": "WzEsMl0="},
        {"NextToken": build_page([job("a"), job("b")], {"SortBy": "Name", "MaxResults": 1})["NextToken"]},
        {"CreationTimeAfter": "yesterday"},
    ],
    ids=["nonsense", "null", "two", "of another order", "time"],
)
def test_what_cannot_be_read_is_refused(change):
    """A token of another list, or a time that is none, is a ValidationException, also where there are no jobs."""
    with pytest.raises(ValidationException):
        build_page([], {"SortBy": "CreationTime", **change})
