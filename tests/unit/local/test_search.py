"""Search: which jobs an expression finds, in which order, and what is refused."""

import pytest

from spotproof.local.search import build_results
from spotproof.local.wire import ValidationException

JOBS = [
    {
        "TrainingJobName": "first",
        "TrainingJobStatus": "Completed",
        "CreationTime": 1_000_000.0,
        "LastModifiedTime": 1_000_100.5,
        "EnableManagedSpotTraining": True,
        "HyperParameters": {"lr": "0.5", "trainer.max_epochs": "10", "name": "abc"},
        "FinalMetricDataList": [{"MetricName": "val:loss", "Value": 0.25, "Timestamp": 1.0}],
        "InputDataConfig": [
            {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/cats"}}},
            {"ChannelName": "test", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/dogs"}}},
        ],
        "Tags": [{"Key": "team.name", "Value": "vision"}],
        "ProfilingStatus": "Disabled",
    },
    {
        "TrainingJobName": "second",
        "TrainingJobStatus": "Failed",
        "CreationTime": 2_000_000.0,
        "LastModifiedTime": 2_000_100.0,
        "EnableManagedSpotTraining": False,
        "HyperParameters": {"lr": "0.05"},
        "Tags": [],
    },
]


def search(**request):
    return build_results(JOBS, {"Resource": "TrainingJob", **request})


def names(answer):
    return [item["TrainingJob"]["TrainingJobName"] for item in answer["Results"]]


def found(name, operator=None, value=None):
    item = {"Name": name, "Operator": operator, "Value": value}
    filters = [{key: text for key, text in item.items() if text is not None}]
    return names(search(SearchExpression={"Filters": filters}, SortBy="TrainingJobName", SortOrder="Ascending"))


@pytest.mark.parametrize(
    ("name", "operator", "value", "expected"),
    [
        ("TrainingJobName", None, "first", ["first"]),
        ("TrainingJobName", "Contains", "s", ["first", "second"]),
        ("TrainingJobName", "In", "second, third", ["second"]),
        ("TrainingJobStatus", "NotEquals", "Failed", ["first"]),
        ("EnableManagedSpotTraining", "Equals", "true", ["first"]),
        ("EnableManagedSpotTraining", "Equals", "1", []),
        ("HyperParameters.lr", "LessThan", "0.5", ["second"]),
        ("HyperParameters.lr", "LessThanOrEqualTo", "0.5", ["first", "second"]),
        ("HyperParameters.lr", "Equals", "0.50", ["first"]),
        ("HyperParameters.name", "GreaterThan", "1", []),
        ("HyperParameters.trainer.max_epochs", "GreaterThanOrEqualTo", "10", ["first"]),
        ("Metrics.val:loss", "GreaterThan", "0.2", ["first"]),
        ("Metrics.val:loss", "GreaterThan", "0.25", []),
        ("Metrics.val:loss", "NotExists", None, ["second"]),
        ("Tags.team.name", "Equals", "vision", ["first"]),
        ("Tags.team.name", "Exists", None, ["first"]),
        ("InputDataConfig.DataSource.S3DataSource.S3Uri", "Contains", "dogs", ["first"]),
        ("InputDataConfig", "NotExists", None, ["second"]),
        ("CreationTime", "GreaterThan", "1970-01-20T00:00:00", ["second"]),
        ("CreationTime", "LessThan", "1970-01-20T00:00:00+00:00", ["first"]),
        ("CreationTime", "Equals", "1000000", ["first"]),
    ],
)
def test_one_filter(name, operator, value, expected):
    """Every operator, on texts, numbers, times, keys with dots, and members of lists."""
    assert found(name, operator, value) == expected


def test_filters_are_combined():
    """All of them by default, any with Or; an expression within counts as one of them; none finds everything."""
    first, second = ({"Name": "TrainingJobName", "Value": name} for name in ("first", "second"))
    assert names(search(SearchExpression={"Filters": [first, second]})) == []
    assert names(search(SearchExpression={"Filters": [first, second], "Operator": "Or"})) == ["second", "first"]
    inner = {"Filters": [first, second], "Operator": "Or"}
    failed = {"Name": "TrainingJobStatus", "Value": "Failed"}
    assert names(search(SearchExpression={"Filters": [failed], "SubExpressions": [inner]})) == ["second"]
    assert names(search(SearchExpression={})) == names(search()) == ["second", "first"]


def test_nested_filters_are_for_one_member_of_a_list():
    """The channel that has the name has to have the place, too."""

    def nested(channel, part):
        filters = [
            {"Name": "InputDataConfig.ChannelName", "Operator": "Equals", "Value": channel},
            {"Name": "InputDataConfig.DataSource.S3DataSource.S3Uri", "Operator": "Contains", "Value": part},
        ]
        expression = {"NestedFilters": [{"NestedPropertyName": "InputDataConfig", "Filters": filters}]}
        return names(search(SearchExpression=expression))

    assert nested("train", "cats") == ["first"]
    assert nested("train", "dogs") == []


def test_order_and_pages():
    """The last modified comes first by default; who lacks the property is last of the descending; pages go on."""
    assert names(search(SortOrder="Ascending")) == ["first", "second"]
    assert names(search(SortBy="Metrics.val:loss")) == ["first", "second"]
    page = search(MaxResults=1)
    assert (names(page), page["TotalHits"]) == (["second"], {"Value": 2, "Relation": "EqualTo"})
    rest = search(MaxResults=1, NextToken=page["NextToken"])
    assert names(rest) == ["first"]
    assert "NextToken" not in rest


def test_a_result_has_what_the_api_says():
    """Tags are among it; what only Describe has is not."""
    (result,) = search(SearchExpression={"Filters": [{"Name": "TrainingJobName", "Value": "first"}]})["Results"]
    assert result["TrainingJob"]["Tags"] == [{"Key": "team.name", "Value": "vision"}]
    assert "ProfilingStatus" not in result["TrainingJob"]


CONTAINS = {"Name": "TrainingJobName", "Operator": "Contains", "Value": "a"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Resource": "Experiment"}, "TrainingJob only"),
        ({"SortBy": "NoSuch"}, "not a property"),
        ({"SearchExpression": {"Filters": [{"Name": "NoSuch.a", "Value": "1"}]}}, "not a property"),
        ({"SearchExpression": {"Filters": [{"Name": "TrainingJobName"}]}}, "no value"),
        ({"SearchExpression": {"Filters": [{**CONTAINS, "Operator": "LessThan"}]}}, "needs a number"),
        ({"SearchExpression": {"Filters": [CONTAINS] * 2}}, "'CONTAINS' operator usage limit of 1 exceeded."),
        ({"SearchExpression": {"SubExpressions": [{"Filters": [CONTAINS]}] * 51}}, "50 conditions"),
        ({"NextToken": "x"}, "pagination token"),
        ({"NextToken": "LTE="}, "pagination token"),
    ],
)
def test_what_is_refused(changes, words):
    """What is not here, and what has no sense, with words."""
    with pytest.raises(ValidationException, match=words):
        search(**changes)
