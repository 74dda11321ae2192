"""The bill, against figures computed by hand; and why there is none."""

import datetime
from typing import Any

import pytest
from test_summary import TWICE, TWICE_EVENTS, at, describe

from spotproof.plan import parse_prices
from spotproof.report import Summary, price_tag, rehearsal_price_tag, summarize, to_json
from spotproof.report.cost import PriceTag, cost_of
from spotproof.report.figures import format_usd, job_rows

TODAY = datetime.date(2026, 1, 5)
FILE = """\
date: 2025-12-20
source: hand
region: us-west-2
prices:
  ml.g5.xlarge: {on_demand: 1.44}
  ml.spot.only: {spot: 0.5}
"""
PRICES = parse_prices(FILE, "prices.yaml")
MACHINES: dict[str, Any] = {
    "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 4},
    "TrainingJobArn": "arn:aws:sagemaker:us-west-2:111122223333:training-job/job",
    "TrainingTimeInSeconds": 1000,
    "BillableTimeInSeconds": 300,
}


def summary_of(**fields: Any) -> Summary:
    description = {**TWICE, **MACHINES, **fields}
    return summarize(description, TWICE_EVENTS, price=price_tag(description, PRICES, today=TODAY))


def rows_of(summary: Summary) -> dict[str, tuple[str, str]]:
    return {row.name.strip(): (row.value, row.how) for row in job_rows(summary)}


def test_the_bill_by_hand():
    """300 s billed of each of 4 instances at 1.44 USD/h are 0.48 USD; the same time on demand 1.60."""
    cost = summary_of().cost
    assert cost.usd == pytest.approx(300 / 3600 * 1.44 * 4)
    assert cost.usd == pytest.approx(0.48)
    assert cost.on_demand_usd == pytest.approx(1.60)
    assert cost.price_date == "2025-12-20"
    assert not cost.price_is_old


def test_lost_steps_cost_what_was_billed_for_them():
    """50 s of lost steps, of which three tenths are billed: 15 s of 4 instances, 0.024 USD."""
    tag = PriceTag(usd_per_hour=1.44, source="hand")
    cost = cost_of(
        tag,
        num_instances=4,
        billable_seconds=300,
        training_seconds=1000,
        undisturbed_seconds=800,
        lost_seconds=50,
    )
    assert cost.lost_usd == pytest.approx(0.024)
    assert cost.undisturbed_usd == pytest.approx(1.28)


def test_lost_seconds_by_hand():
    """13 and 5 steps of 1 s each; three tenths of them billed, of four instances."""
    summary = summary_of()
    assert summary.lost_seconds == pytest.approx(18)
    assert summary.cost.lost_usd == pytest.approx(18 * 0.3 * 4 * 1.44 / 3600)
    assert summary.saving_seconds == pytest.approx(0.07)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"ResourceConfig": {"InstanceType": "ml.p5.48xlarge", "InstanceCount": 1}}, "has none of ml.p5.48xlarge"),
        ({"ResourceConfig": {"InstanceType": "ml.spot.only", "InstanceCount": 1}}, "no on-demand price"),
        ({"TrainingJobArn": MACHINES["TrainingJobArn"].replace("us-west-2", "eu-west-1")}, "has those of us-west-2"),
        ({"ResourceConfig": {"InstanceGroups": [{"InstanceType": "a", "InstanceCount": 2}]}}, "no one instance type"),
    ],
)
def test_no_price_rather_than_a_wrong_one(fields: dict[str, Any], why: str):
    """Another region's price is not the job's; the reason and the command are told."""
    summary = summary_of(**fields)
    assert summary.cost.usd is None
    assert summary.cost.undisturbed_usd is None
    assert why in summary.cost.price_source
    value, how = rows_of(summary)["Cost"]
    assert value == "no price"
    assert why in how


def test_without_a_file_the_command_is_named():
    """With the job's own region."""
    tag = price_tag(MACHINES, None, today=TODAY)
    assert tag.source == "no price: `spotproof prices update --region us-west-2` gets one"


def test_old_prices_are_told():
    """By the job's end, not by today: the price of then is the right one."""
    later = at(86400 * 120)
    assert summary_of(TrainingEndTime=later).cost.price_is_old
    assert rows_of(summary_of(TrainingEndTime=later))["price"][0] == "2025-12-20, old"
    running = {name: value for name, value in MACHINES.items() if name != "TrainingEndTime"}
    assert price_tag(running, PRICES, today=datetime.date(2026, 12, 1)).is_old


def test_a_job_of_the_sdk_without_a_trace_of_ours():
    """Describe alone: attempts, waits, bill and savings are there; of the rest it is said why not."""
    description = {
        **describe(("Starting", 0), ("Downloading", 5), ("Training", 10), ("Interrupted", 60), ("Starting", 61)),
        **MACHINES,
    }
    description["SecondaryStatusTransitions"] += [
        {"Status": "Training", "StartTime": at(100)},
        {"Status": "Completed", "StartTime": at(200)},
    ]
    summary = summarize(description, [], price=price_tag(description, PRICES, today=TODAY))
    rows = rows_of(summary)
    assert [attempt.outcome for attempt in summary.attempts] == ["reclaimed", "finished"]
    assert rows["Cost"][0] == "0.48 USD"
    assert rows["AWS savings"][0] == "70.0 %"
    assert rows["Lost steps"] == (
        "-",
        "it has no checkpoint place, and its log tells of no steps: SpotCheckpoint does so",
    )
    assert rows["Net savings"][0] == "-"
    assert "none can be estimated" in rows["Net savings"][1]
    assert set(summary.missing) == {"useful_seconds", "lost_seconds", "undisturbed_seconds"}
    assert to_json(summary)["missing"].keys() == set(summary.missing)


def test_a_description_with_nothing_in_it():
    """No crash on any missing part, and a reason for each missing number."""
    summary = summarize({"TrainingJobName": "bare"}, [], price=price_tag({}, PRICES, today=TODAY))
    assert rows_of(summary)["Training time"] == ("-", "it is still running")
    for name in ("training_seconds", "billable_seconds", "wall_seconds", "waiting_seconds", "undisturbed_seconds"):
        assert summary.missing[name]


@pytest.mark.parametrize(
    ("usd", "text"),
    [(0, "0.00 USD"), (12.345, "12.35 USD"), (0.48, "0.48 USD"), (0.0015, "0.0015 USD"), (0.00006, "0.000060 USD")],
)
def test_amounts_have_the_digits_they_need(usd: float, text: str):
    """No exponents."""
    assert format_usd(usd) == text


def test_a_rehearsal_is_priced_and_told_to_be_local():
    """The price is of the machine that the job is for, the seconds are of this one: a row says so."""
    tag = rehearsal_price_tag("ml.g5.xlarge", "us-west-2", PRICES, today=TODAY)
    summary = summarize({**TWICE, **MACHINES}, TWICE_EVENTS, price=tag)
    assert summary.cost.usd == pytest.approx(0.48)
    assert rows_of(summary)["seconds"][0] == "local"
    assert "ml.g5.xlarge" in rows_of(summary)["seconds"][1]
    assert "seconds" not in rows_of(summary_of())


@pytest.mark.parametrize(
    ("kind", "region", "prices", "reason"),
    [
        ("ml.g5.xlarge", "eu-west-1", PRICES, "the job is for eu-west-1"),
        ("ml.p4d.24xlarge", None, PRICES, "has none of ml.p4d.24xlarge"),
        ("ml.g5.xlarge", None, None, "`spotproof prices update` gets one"),
    ],
)
def test_a_rehearsal_without_a_price_says_why(kind: str, region: str | None, prices: Any, reason: str):
    """No figure is made up, and the row of the cost is there all the same."""
    tag = rehearsal_price_tag(kind, region, prices, today=TODAY)
    summary = summarize({**TWICE, **MACHINES}, TWICE_EVENTS, price=tag)
    assert summary.cost.usd is None
    value, how = rows_of(summary)["Cost"]
    assert value == "no price"
    assert reason in how
