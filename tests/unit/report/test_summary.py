"""From events and Describe to numbers: lost steps, goodput, savings."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from spotproof.events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    CheckpointRejected,
    Event,
    IntervalTuned,
    Progress,
    Resumed,
)
from spotproof.report import (
    FaultCount,
    FaultSummary,
    Spread,
    aws_savings_percent,
    net_savings_percent,
    summarize,
    to_json,
)
from spotproof.report.summary import spread_of

ZERO = datetime(2026, 1, 1, tzinfo=timezone.utc)


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def describe(*transitions: tuple[str, float], **fields: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "job",
        "TrainingJobStatus": "Completed",
        "EnableManagedSpotTraining": True,
        "CreationTime": at(0),
        "TrainingEndTime": at(transitions[-1][1]),
        "SecondaryStatusTransitions": [{"Status": status, "StartTime": at(seconds)} for status, seconds in transitions],
        **fields,
    }


def steps(attempt: int, first: int, last: int, begin: float, pace: float = 1.0) -> list[Event]:
    """Progress from *first* (where training begins) to *last*, one step each *pace* seconds."""
    return [
        Progress(attempt=attempt, epoch=0, step=step, at=at(begin + pace * (step - first)))
        for step in range(first, last + 1)
    ]


def started(attempt: int, seconds: float) -> Event:
    return AttemptStarted(attempt=attempt, run_id="r", config={}, versions={}, at=at(seconds))


def committed(attempt: int, step: int, seconds: float, stall: float = 0.01, durable: float = 0.1) -> Event:
    return CheckpointCommitted(
        attempt=attempt,
        step=step,
        stall_seconds=stall,
        durable_seconds=durable,
        total_bytes=10,
        written_bytes=10,
        at=at(seconds),
    )


TWICE = describe(
    ("Starting", 0),
    ("Downloading", 5),
    ("Training", 10),
    ("Interrupted", 60),
    ("Starting", 61),
    ("Downloading", 70),
    ("Training", 75),
    ("Interrupted", 120),
    ("Starting", 121),
    ("Downloading", 130),
    ("Training", 135),
    ("Uploading", 200),
    ("Completed", 205),
    TrainingTimeInSeconds=175,
    BillableTimeInSeconds=53,
)
TWICE_EVENTS: list[Event] = [
    started(0, 15),
    *steps(0, 0, 33, 20),
    committed(0, 20, 41, stall=0.01, durable=0.2),
    committed(0, 30, 51, stall=0.03, durable=0.4),
    started(1, 80),
    CheckpointRejected(attempt=1, step=30, reason="cut short", at=at(79)),
    Resumed(attempt=1, step=20, seconds=0.5, at=at(81)),
    *steps(1, 20, 55, 82),
    committed(1, 50, 113, stall=0.02, durable=0.3),
    started(2, 140),
    Resumed(attempt=2, step=50, seconds=0.5, at=at(141)),
    *steps(2, 50, 100, 142),
    committed(2, 100, 193),
    AttemptEnded(attempt=2, outcome="finished", step=100, at=at(193)),
]


def test_two_interruptions() -> None:
    """Steps from-to, resumed step, lost steps, rejected checkpoints and the ends of three attempts."""
    summary = summarize(TWICE, TWICE_EVENTS, reclaims_planned=2)

    assert [attempt.outcome for attempt in summary.attempts] == ["reclaimed", "reclaimed", "finished"]
    assert [attempt.resumed_from_step for attempt in summary.attempts] == [0, 20, 50]
    assert [attempt.last_step for attempt in summary.attempts] == [33, 55, 100]
    assert [attempt.lost_steps for attempt in summary.attempts] == [13, 5, 0]
    assert [attempt.num_checkpoints for attempt in summary.attempts] == [2, 1, 1]
    assert [attempt.seconds for attempt in summary.attempts] == [50, 45, 65]
    assert [attempt.start_up_seconds for attempt in summary.attempts] == [10, 7, 7]
    assert [attempt.seconds_per_step for attempt in summary.attempts] == [1, 1, 1]
    assert [(bad.step, bad.reason) for bad in summary.attempts[1].rejected] == [(30, "cut short")]
    assert summary.attempts[0].stall_seconds == Spread(p50=0.01, p95=0.03)
    assert summary.attempts[0].durable_seconds == Spread(p50=0.2, p95=0.4)
    assert summary.attempts[2].restore_seconds == 0.5
    assert summary.num_interruptions == 2
    assert summary.reclaims_planned == 2
    assert summary.lost_steps == 18
    assert summary.final_step == 100
    assert summary.num_checkpoints == 4


def test_lost_steps_balance() -> None:
    """Computed steps are the final model's plus the lost ones, also when a resume goes back behind an attempt."""
    events: list[Event] = [
        *steps(0, 0, 30, 20),
        *steps(1, 20, 40, 82),
        Resumed(attempt=2, step=10, seconds=0, at=at(141)),
        *steps(2, 10, 60, 142),
    ]
    summary = summarize(TWICE, events)

    computed = 30 + 20 + 50
    assert summary.lost_steps == computed - 60
    assert [attempt.lost_steps for attempt in summary.attempts] == [10, 30, 0]


def test_goodput_counts_only_what_lives_on() -> None:
    """Useful are the seconds of steps in the final model: 20 + 30 + 50 of the 205 since submission."""
    summary = summarize(TWICE, TWICE_EVENTS)

    assert summary.useful_seconds == 100
    assert summary.wall_seconds == 205
    assert summary.goodput == pytest.approx(100 / 205)


def test_savings_by_both_formulas() -> None:
    """AWS's percentage and the net one against a measured undisturbed run differ by what interruptions cost."""
    twin = describe(("Training", 0), ("Completed", 120), TrainingTimeInSeconds=120, BillableTimeInSeconds=120)
    summary = summarize(TWICE, TWICE_EVENTS, undisturbed={**twin, "TrainingJobName": "twin"})

    assert summary.aws_savings_percent == pytest.approx((1 - 53 / 175) * 100)
    assert summary.net_savings_percent == pytest.approx((1 - 53 / 120) * 100)
    assert (summary.undisturbed_seconds, summary.undisturbed_source) == (120, "measured")
    assert summary.undisturbed_job_name == "twin"


def test_undisturbed_time_is_estimated_and_said_to_be() -> None:
    """Without an undisturbed run its time is start-up + steps at the measured pace + the end, and marked estimated."""
    summary = summarize(TWICE, TWICE_EVENTS)

    assert summary.undisturbed_source == "estimated"
    assert summary.undisturbed_seconds == pytest.approx((20 - 10) + 100 * 1.0 + (205 - 192))


def test_no_savings_without_training() -> None:
    """A job that never trained saved nothing, and divides by nothing."""
    assert aws_savings_percent(0, 0) is None
    assert net_savings_percent(10, 0) is None
    assert net_savings_percent(150, 100) == pytest.approx(-50)


def test_attempts_that_call_themselves_the_same() -> None:
    """An attempt of which nothing was mirrored leaves its number to the next; the status history tells them apart."""
    events: list[Event] = [
        *steps(0, 0, 3, 20),  # from the log alone: its event file never reached S3
        started(0, 80),
        *steps(0, 0, 25, 82),
        committed(0, 20, 103),
        started(1, 140),
        Resumed(attempt=1, step=20, seconds=0.1, at=at(141)),
        *steps(1, 20, 40, 142),
    ]
    summary = summarize(TWICE, events)

    assert [(a.resumed_from_step, a.last_step, a.lost_steps) for a in summary.attempts] == [
        (0, 3, 3),
        (0, 25, 5),
        (20, 40, 0),
    ]


def test_attempt_of_which_nothing_is_known() -> None:
    """An attempt killed before its first line counts as an attempt, with nothing lost by it."""
    events = [*steps(0, 0, 30, 20), *steps(2, 20, 60, 142)]
    summary = summarize(TWICE, events)

    assert (summary.attempts[1].resumed_from_step, summary.attempts[1].last_step) == (None, None)
    assert summary.lost_steps == 10


def test_lines_taken_in_late_belong_to_the_killed_attempt() -> None:
    """The last lines of a killed machine are taken in after its end; they are still its own."""
    late = Progress(attempt=0, epoch=0, step=34, at=at(60.4))
    summary = summarize(TWICE, [*TWICE_EVENTS, late])

    assert [attempt.last_step for attempt in summary.attempts] == [34, 55, 100]


def test_events_of_an_earlier_job_in_the_same_place_are_left_out() -> None:
    """A job that continues an older one's checkpoints does not count the older one's attempts."""
    older = [started(0, -500), *steps(0, 0, 400, -490, pace=0.1), committed(0, 400, -400)]
    summary = summarize(TWICE, [*older, *TWICE_EVENTS])

    assert summary.num_checkpoints == 4
    assert summary.attempts[0].last_step == 33


def test_progress_told_twice_counts_once() -> None:
    """The log and the event file tell the same steps."""
    doubled = [*TWICE_EVENTS, *[event for event in TWICE_EVENTS if isinstance(event, Progress)]]

    assert summarize(TWICE, doubled) == summarize(TWICE, TWICE_EVENTS)


@pytest.mark.parametrize(
    ("transitions", "status", "outcomes"),
    [
        ([("Starting", 0), ("Training", 10)], "InProgress", ["running"]),
        ([("Starting", 0), ("Training", 10), ("Uploading", 20), ("Failed", 21)], "Failed", ["failed"]),
        ([("Training", 10), ("Stopping", 20), ("Uploading", 21), ("Stopped", 22)], "Stopped", ["stopped"]),
        ([("Training", 10), ("Stopping", 20), ("MaxRuntimeExceeded", 22)], "Stopped", ["out of time"]),
        (
            [("Training", 10), ("Interrupted", 20), ("Starting", 21), ("Stopping", 30), ("MaxWaitTimeExceeded", 31)],
            "Stopped",
            ["reclaimed"],
        ),
        ([("Starting", 0), ("Failed", 3)], "Failed", []),
        (
            [("Starting", 0), ("Downloading", 1), ("Interrupted", 2), ("Starting", 3), ("Training", 9)],
            "InProgress",
            ["running"],
        ),
    ],
)
def test_how_attempts_end(transitions: Sequence[tuple[str, float]], status: str, outcomes: list[str]) -> None:
    """Each documented status sequence gives the attempts that trained, and how each ended."""
    summary = summarize(describe(*transitions, TrainingJobStatus=status), [])

    assert [attempt.outcome for attempt in summary.attempts] == outcomes


def test_without_a_platform_the_runtimes_numbers_count() -> None:
    """Events of a plain run, with no service around it, are still summed up."""
    events = [
        *steps(0, 0, 10, 0),
        *steps(1, 5, 20, 100),
        AttemptEnded(attempt=1, outcome="finished", step=20, at=at(130)),
    ]
    summary = summarize({}, events)

    assert [attempt.outcome for attempt in summary.attempts] == ["unknown", "finished"]
    assert summary.lost_steps == 5


def tuned(attempt: int, seconds: float, at_seconds: float) -> Event:
    return IntervalTuned(
        attempt=attempt,
        seconds=seconds,
        bound="budget",
        optimum_seconds=1.0,
        stall_seconds=0.1,
        slowdown_seconds=0.1,
        durable_seconds=1.0,
        mean_uptime_seconds=60.0,
        interruptions=2,
        budget=0.02,
        reason=f"Saving every {seconds:g} s: so.",
        at=at(at_seconds),
    )


def test_the_last_interval_and_its_reason_are_told() -> None:
    """What auto mode settled on, why, and how often it changed its mind within attempts."""
    summary = summarize(TWICE, [*TWICE_EVENTS, tuned(0, 20, 30), tuned(0, 15, 40), tuned(2, 5, 140)])

    assert (summary.interval_seconds, summary.interval_changes) == (5, 1)
    assert summary.interval_reason == "Saving every 5 s: so."
    assert summary.slowdown_seconds == 0.1
    assert summarize(TWICE, TWICE_EVENTS).interval_seconds is None


def test_spread_is_by_nearest_rank() -> None:
    """p50 and p95 are values that were measured."""
    assert spread_of([]) is None
    assert spread_of([3.0]) == Spread(p50=3.0, p95=3.0)
    assert spread_of([float(n) for n in range(1, 101)]) == Spread(p50=50.0, p95=95.0)


def test_json_has_the_same_numbers() -> None:
    """--json is the summary, name by name."""
    summary = summarize(TWICE, TWICE_EVENTS)
    plain = to_json(summary)

    assert plain["lost_steps"] == 18
    assert plain["attempts"][1]["rejected"] == [{"step": 30, "reason": "cut short"}]
    assert plain["attempts"][0]["stall_seconds"] == {"p50": 0.01, "p95": 0.03}


def test_an_attempt_that_began_anew() -> None:
    """After an attempt that had come further, one that begins at step 0 is told; the first one is not."""
    events: list[Event] = [started(0, 15), *steps(0, 0, 33, 20), started(1, 80), *steps(1, 0, 30, 82)]
    summary = summarize(TWICE, events)

    assert [attempt.began_anew for attempt in summary.attempts] == [False, True, False]
    assert summary.num_resumes == 0
    assert to_json(summary)["num_resumes"] == 0
    assert summarize(TWICE, TWICE_EVENTS).num_resumes == 2
    assert not any(attempt.began_anew for attempt in summarize(TWICE, TWICE_EVENTS).attempts)


def test_what_faults_cost() -> None:
    """A fault of an attempt has that attempt's lost steps beside it; one of S3 has none."""
    counts = [
        FaultCount(kind="torn", attempt=1, count=3, examples=("packs/a: torn",)),
        FaultCount(kind="error", attempt=None, count=9, examples=("PUT /b/k",)),
        FaultCount(kind="late", attempt=7, count=1, examples=("x",)),
    ]
    faults = FaultSummary(
        seed=3,
        reclaim="step:5",
        sync_faults="torn:1",
        s3_faults="error:1",
        injected=tuple(counts),
        given={1: ["a: torn"]},
    )
    summary = summarize(TWICE, TWICE_EVENTS, faults=faults)

    assert summary.faults is not None
    assert [item.lost_steps for item in summary.faults.injected] == [5, None, None]
    assert to_json(summary)["faults"]["given"] == {"1": ["a: torn"]}
    assert "attempt 1 began with a: torn" in summary.faults.story()
    assert "attempt 1 had faults: torn 3×" in summary.faults.story()
    assert "S3 had faults: error 9×" in summary.faults.story()
    assert summary.faults.command() == "--reclaim 'step:5' --sync-faults 'torn:1' --s3-faults 'error:1'"


def test_an_attempt_that_was_killed_before_it_told_of_its_resume() -> None:
    """Its first line of progress says where it began: the second of three went on from 20, not from the start."""
    events = [
        started(0, 11),
        *steps(0, 0, 33, 15),
        committed(0, 20, 36),
        started(1, 76),
        *steps(1, 20, 20, 80),
    ]
    summary = summarize(TWICE, events)
    assert summary.attempts[1].resumed_from_step == 20
    assert summary.attempts[0].lost_steps == 13
