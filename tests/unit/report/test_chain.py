"""Several jobs as one, and waits: against figures computed by hand."""

import dataclasses
from typing import Any

import pytest
from test_summary import at, committed, describe, started, steps

from spotproof.events import AttemptStarted, Event, Resumed
from spotproof.report import chain_of, chain_to_json, in_order, shares_checkpoints, summarize
from spotproof.report.cost import PriceTag
from spotproof.report.waits import waits_of

TAG = PriceTag(usd_per_hour=3.6, source="hand")
"""A thousandth of a dollar a second."""

FIRST = {
    **describe(("Starting", 0), ("Training", 10), ("Interrupted", 65), ("Starting", 65)),
    "TrainingJobName": "five-epochs",
    "TrainingJobStatus": "Stopped",
    "TrainingEndTime": at(100),
    "TrainingTimeInSeconds": 55,
    "BillableTimeInSeconds": 20,
    "CheckpointConfig": {"S3Uri": "s3://b/run"},
}
SECOND = {
    **describe(("Starting", 200), ("Training", 210), ("Completed", 275)),
    "TrainingJobName": "two-more",
    "EnableManagedSpotTraining": False,
    "CreationTime": at(200),
    "TrainingEndTime": at(275),
    "TrainingTimeInSeconds": 65,
    "BillableTimeInSeconds": 65,
    "CheckpointConfig": {"S3Uri": "s3://b/run/"},
}
EVENTS: list[Event] = [
    started(0, 11),
    *steps(0, 0, 40, 15),
    committed(0, 30, 46),
    AttemptStarted(attempt=1, run_id="r", config={}, versions={}, at=at(211)),
    Resumed(attempt=1, step=30, seconds=1, at=at(214)),
    *steps(1, 30, 80, 215),
]


def both() -> list[Any]:
    return [summarize(each, EVENTS, price=TAG) for each in (FIRST, SECOND)]


def test_events_of_a_later_job_in_the_same_place_are_not_counted():
    """The first job ends at step 40, whatever the second did afterwards."""
    first, second = both()
    assert (first.final_step, first.lost_steps) == (40, 0)
    assert (second.attempts[0].resumed_from_step, second.final_step) == (30, 80)


def test_the_totals_by_hand():
    """Ten steps are lost between the jobs; 85 s billed are 0.085 USD. One run: 5 s to the first step, 80 steps of 1 s,
    and 10 s at the end."""
    chain = chain_of(both())
    assert (chain.lost_steps, chain.lost_between_steps) == (10, 10)
    assert (chain.training_seconds, chain.billable_seconds) == (120, 85)
    assert chain.usd == pytest.approx(0.085)
    assert chain.aws_savings_percent == pytest.approx((1 - 85 / 120) * 100)
    assert chain.undisturbed_seconds == pytest.approx(5 + 80 + 10)
    assert chain.undisturbed_usd == pytest.approx(0.095)
    assert chain.net_savings_percent == pytest.approx((1 - 85 / 95) * 100)
    assert chain.num_interruptions == 1
    assert chain.final_step == 80


def test_a_single_job_that_went_on_is_compared_to_its_own_part():
    """50 steps of the second job, not the 80 that the model has seen."""
    assert both()[1].undisturbed_seconds == pytest.approx(5 + 50 + 10)


def test_a_figure_that_one_job_lacks():
    """The sum is not known, and it is said whose part is missing."""
    first, second = both()
    chain = chain_of([dataclasses.replace(first, billable_seconds=None), second])
    assert chain.billable_seconds is None
    assert chain.missing["billable_seconds"] == "not known of five-epochs"
    document = chain_to_json(chain)
    assert [job["job_name"] for job in document["jobs"]] == ["five-epochs", "two-more"]
    assert document["total"]["billable_seconds"] is None


def test_which_jobs_belong_together():
    """By their checkpoint prefix, a slash at its end or not; jobs without one belong to nobody."""
    assert shares_checkpoints(FIRST, SECOND)
    assert not shares_checkpoints(FIRST, {"CheckpointConfig": {"S3Uri": "s3://b/run-2"}})
    assert not shares_checkpoints({}, {})
    assert in_order([SECOND, FIRST]) == [FIRST, SECOND]


def test_waits_by_hand():
    """Starting 0-10, Interrupted 60-61 and Starting 61-91, of which 20 s without capacity."""
    description = {
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": at(0), "EndTime": at(5), "StatusMessage": "Launching"},
            {"Status": "Downloading", "StartTime": at(5), "EndTime": at(10)},
            {"Status": "Training", "StartTime": at(10), "EndTime": at(60)},
            {"Status": "Interrupted", "StartTime": at(60), "EndTime": at(61)},
            {
                "Status": "Starting",
                "StartTime": at(61),
                "EndTime": at(81),
                "StatusMessage": "Insufficient capacity error from EC2 while launching instances, retrying!",
            },
            {"Status": "Starting", "StartTime": at(81)},
            {"Status": "Training", "StartTime": at(91)},
        ]
    }
    waits = waits_of(description)
    assert waits is not None
    assert (waits.total, waits.without_capacity) == (36, 20)
    assert waits_of({}) is None
