"""What `watch` shows of a job, and what it warns of: from Describe, events and manifests alone."""

import itertools
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from spotproof.events import (
    CheckpointCommitted,
    CheckpointRejected,
    IntervalTuned,
    Progress,
    Resumed,
    SaveFailed,
    SaveStalled,
    StepsPlanned,
    Warned,
)
from spotproof.plan import Price
from spotproof.supervise import Look, StoredCheckpoint, build_view, running_seconds, view_to_json
from spotproof.supervise.look import thinned

ZERO = datetime(2026, 1, 1, tzinfo=timezone.utc)
PRICE = Price(on_demand_usd_per_hour=3.6, spot_usd_per_hour=1.2, source="prices.yaml, 2026-01-01")


def at(seconds):
    return ZERO + timedelta(seconds=seconds)


def job(*statuses, status="InProgress", **more):
    """A description: each status with the second it began."""
    transitions = [{"Status": name, "StartTime": at(begin), "StatusMessage": f"{name} it"} for name, begin in statuses]
    for entry, following in itertools.pairwise(transitions):
        entry["EndTime"] = following["StartTime"]
    return {
        "TrainingJobName": "j",
        "TrainingJobStatus": status,
        "SecondaryStatus": statuses[-1][0],
        "SecondaryStatusTransitions": transitions,
        "CreationTime": ZERO,
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 9999, "MaxWaitTimeInSeconds": 9999},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2},
        "CheckpointConfig": {"S3Uri": "s3://b/ck/"},
        **more,
    }


def steps(attempt, *pairs):
    return [Progress(attempt=attempt, step=step, epoch=0, at=at(seconds)) for step, seconds in pairs]


def commit(step, seconds, attempt=0):
    return CheckpointCommitted(
        attempt=attempt,
        step=step,
        stall_seconds=0.1,
        durable_seconds=1.0,
        total_bytes=1,
        written_bytes=1,
        at=at(seconds),
    )


RECLAIMED = [
    ("Starting", 0),
    ("Downloading", 60),
    ("Training", 80),
    ("Interrupted", 1080),
    ("Starting", 1090),
    ("Downloading", 1990),
    ("Training", 2000),
]
EVENTS = [
    StepsPlanned(attempt=0, total_steps=4000, at=at(90)),
    *steps(0, (0, 100), (800, 900), (900, 1000)),
    commit(500, 600),
    commit(800, 900),
    Resumed(attempt=1, step=800, seconds=1.0, at=at(2050)),
    *steps(1, (800, 2100), (1000, 2300)),
]


def look(seconds=2300, *, description=None, events=EVENTS, checkpoint=(800, 905), **more):
    stored = StoredCheckpoint(step=checkpoint[0], created_at=at(checkpoint[1])) if checkpoint else None
    return Look(
        at=at(seconds),
        description=description or job(*RECLAIMED),
        events=tuple(sorted(events, key=lambda event: event.at)),
        checkpoint=stored,
        place_read_at=at(seconds),
        last_line_at=at(seconds),
        **more,
    )


def test_a_running_job_after_a_reclaim():
    """Phase, attempt, step, rate, checkpoint and its age, cost of two machines, and the end at the measured goodput."""
    view = build_view(look(), price=PRICE)

    assert (view.phase, view.attempt, view.num_interruptions) == ("Training", 1, 1)
    assert (view.step, view.total_steps, view.seconds_per_step) == (1000, 4000, 1.0)
    assert (view.checkpoint_step, view.checkpoint_age_seconds) == (800, 2300 - 905)
    # Downloading and Training: 60 to 1080, and 1990 to now; waiting costs nothing.
    assert view.running_seconds == 1020 + 310
    assert view.spent_usd == pytest.approx(1330 * 2 * 1.2 / 3600)
    # Of the steps' 2200 s, 800 + 200 count; the rest, 3000 s, goes on like that.
    assert view.goodput == pytest.approx(1000 / 2200)
    assert view.finish_at == at(2300 + 3000 / (1000 / 2200))
    assert view.projected_usd > view.spent_usd + 3000 * 2 * 1.2 / 3600
    assert view_to_json(view)["finish_at"].startswith("2026-01-01T")


def test_nothing_is_made_up():
    """Without a price there is no cost, without a planned end no time of it, before the first step no rate."""
    view = build_view(look(100, description=job(*RECLAIMED[:1]), events=[], checkpoint=None))

    assert view.spent_usd is view.projected_usd is view.price_source is None
    assert view.finish_at is view.total_steps is view.step is view.seconds_per_step is None
    assert view.checkpoint_step is None
    assert view.running_seconds == 0


def test_a_job_that_is_over_costs_what_the_service_bills():
    """BillableTimeInSeconds at the on-demand price, for both machines."""
    over = job(
        *RECLAIMED, ("Completed", 2400), status="Completed", BillableTimeInSeconds=400, TrainingTimeInSeconds=1300
    )
    view = build_view(look(5000, description=over | {"TrainingEndTime": at(2400)}), price=PRICE)

    assert view.is_over
    assert view.spent_usd == view.projected_usd == pytest.approx(400 * 2 * 3.6 / 3600)
    assert view.finish_at == at(2400)
    assert running_seconds(over, at(9999)) == 1300


def test_the_metric_tells_the_step_where_nothing_else_does():
    """A job whose events and log are not there still shows a step."""
    metrics = [
        {"MetricName": "spotproof:step", "Value": 70.0, "Timestamp": ZERO},
        {"MetricName": "acc", "Value": 0.5, "Timestamp": ZERO},
        {"MetricName": "train_loss", "Value": 0.1, "Timestamp": ZERO},
    ]
    view = build_view(look(events=[], description=job(*RECLAIMED, FinalMetricDataList=metrics)))
    assert view.step == 70
    assert list(view.metrics.items()) == [("train_loss", 0.1), ("acc", 0.5)]


def kinds(view):
    return [alarm.kind for alarm in view.alarms]


@pytest.mark.parametrize(
    ("seconds", "is_told"),
    [(3360.5, False), (3361.5, True)],
    ids=["within", "beyond"],
)
def test_the_silent_stall_of_the_copying(seconds, is_told):
    """It saved every 300 s: three of them, a minute for the mirror and the save's own second later it is said."""
    view = build_view(look(seconds, checkpoint=(800, 2400)))
    assert ("no-checkpoint" in kinds(view)) == is_told


@pytest.mark.parametrize(
    ("tuned", "longest"),
    [(100.0, 3 * 300), (500.0, 3 * 500)],
    ids=["as it has come", "as it is set"],
)
def test_the_longer_interval_of_both_is_expected(tuned, longest):
    """What the tuning has set counts, and what came: the longer one, so that nothing is told too early."""
    tuning = IntervalTuned(
        attempt=1,
        seconds=tuned,
        bound="budget",
        optimum_seconds=tuned,
        stall_seconds=0.1,
        slowdown_seconds=0.0,
        durable_seconds=1.0,
        mean_uptime_seconds=3600.0,
        interruptions=1,
        budget=0.02,
        reason="",
        at=at(2100),
    )
    for late, is_told in ((60.5, False), (61.5, True)):
        seen = look(2400 + longest + late, events=[*EVENTS, tuning], checkpoint=(800, 2400))
        assert ("no-checkpoint" in kinds(build_view(seen))) == is_told


def test_a_stall_is_measured_from_the_last_time_that_s3_was_read():
    """What was not looked at since is no stall."""
    seen = replace(look(3500, checkpoint=(800, 2400)), place_read_at=at(3000))
    assert "no-checkpoint" not in kinds(build_view(seen))
    assert "no-checkpoint" not in kinds(build_view(replace(seen, place_read_at=None)))


@pytest.mark.parametrize("phase", ["Interrupted", "Starting", "Downloading"])
def test_nobody_saves_while_waiting_for_machines(phase):
    """Between two attempts no checkpoint comes and the log is silent, however long that takes: that is no stall."""
    waiting = job(*RECLAIMED[:3], (phase, 1080))
    assert kinds(build_view(look(99_999, description=waiting, events=EVENTS[:6], checkpoint=(800, 905)))) == []


def test_no_checkpoint_at_all():
    """Without a measured interval: a quarter of an hour after the first step."""
    events = [*steps(0, (0, 100), (900, 1100))]
    running = job(*RECLAIMED[:3])
    assert kinds(build_view(look(990, description=running, events=events, checkpoint=None))) == []
    (alarm,) = build_view(look(1010, description=running, events=events, checkpoint=None)).alarms
    assert alarm.kind == "no-checkpoint"
    assert "s3://b/ck/" in alarm.what
    assert "there is none" in alarm.what
    assert "spotproof stop JOB --wait" in alarm.do


def test_spot_that_is_not_on():
    """Asked for and not on: said. Not asked for: not said. Not known: a MaxWaitTime shows that it was."""
    on_demand = job(*RECLAIMED, EnableManagedSpotTraining=False)
    assert "not-spot" in kinds(build_view(look(description=on_demand), asked_spot=True))
    assert "not-spot" not in kinds(build_view(look(description=on_demand), asked_spot=False))
    assert "not-spot" in kinds(build_view(look(description=on_demand)))
    plain = on_demand | {"StoppingCondition": {"MaxRuntimeInSeconds": 9999}}
    assert "not-spot" not in kinds(build_view(look(description=plain)))
    assert "not-spot" not in kinds(build_view(look(), asked_spot=True))


def test_what_else_is_said():
    """No place for checkpoints, an attempt that began anew, a log that is silent, and what the program warned of."""
    without = job(*RECLAIMED)
    del without["CheckpointConfig"]
    assert "no-checkpoint-place" in kinds(build_view(look(description=without)))
    on_demand = without | {"EnableManagedSpotTraining": False, "StoppingCondition": {"MaxRuntimeInSeconds": 9999}}
    assert kinds(build_view(look(description=on_demand))) == []
    anew = [*EVENTS[:6], *steps(1, (0, 2100), (100, 2200)), SaveFailed(attempt=1, step=50, reason="full", at=at(2200))]
    told = build_view(look(events=anew))
    assert kinds(told) == ["began-anew", "program"]
    assert "full" in told.alarms[1].what
    silent = replace(look(3000, checkpoint=(900, 2990)), last_line_at=at(2300))
    assert kinds(build_view(silent)) == ["silent"]


def test_an_attempt_that_has_just_begun_is_not_silent():
    """Its first line may not have come yet; what the attempt before it said last is long ago."""
    assert kinds(build_view(replace(look(2300), last_line_at=at(900)))) == []


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Warned(attempt=1, message="data on a slow disk", at=at(2200)), "slow disk"),
        (SaveStalled(attempt=1, step=900, seconds=75.0, at=at(2200)), "step 900 has been under way for 75 s"),
        (CheckpointRejected(attempt=1, step=800, reason="cut short", at=at(2060)), "Checkpoint 800 did not verify"),
        (SaveFailed(attempt=1, step=900, reason="disk full", at=at(2200)), "step 900 failed: disk full"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_program_warns_of_is_passed_on(event, words):
    """Once, however often it says so; not what was said before this job, in the folder that it goes on from."""
    (alarm,) = build_view(look(events=[*EVENTS, event, replace(event, at=at(2250))])).alarms
    assert alarm.kind == "program"
    assert words in alarm.what
    assert kinds(build_view(look(events=[*EVENTS, replace(event, at=at(-5))]))) == []


def test_a_warning_of_one_stall_has_one_key():
    """So that it is told once, and again only after a checkpoint has come."""
    first = build_view(look(3500, checkpoint=(800, 2400))).alarms[0]
    later = build_view(look(4500, checkpoint=(800, 2400))).alarms[0]
    other = build_view(look(9500, checkpoint=(1200, 5000))).alarms[0]
    assert first.key == later.key != other.key


def test_steps_are_thinned():
    """The ends of each attempt stay, so that pace and loss are as before."""
    told = [*steps(0, *((step, step) for step in range(100))), *steps(1, (50, 200), (51, 201), (52, 202))]
    kept = [(each.attempt, each.step) for each in thinned(told, 10.0)]
    assert kept == [(0, step) for step in range(0, 100, 10)] + [(0, 99), (1, 50), (1, 52)]
