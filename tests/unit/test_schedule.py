"""The grammar of reclaim schedules and when their reclaims are due."""

import json

import pytest

from spotproof.errors import SpecError
from spotproof.schedule import Moment, Reclaim, parse_duration, parse_schedule


def moment(attempt=0, *, job=0.0, since_first=0.0, in_attempt=0.0, trained=0.0, step=None):
    return Moment(
        attempt=attempt,
        job_seconds=job,
        since_first_training_seconds=since_first,
        attempt_seconds=in_attempt,
        trained_seconds=trained,
        step=step,
    )


def trace(data, gap_seconds=10):
    text = json.dumps({"metadata": {"gap_seconds": gap_seconds}, "data": data})
    return lambda path: text


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("2m", 120), ("1h", 3600), ("1.5s", 1.5), ("250ms", 0.25), ("1d", 86400)]
)
def test_durations_are_seconds(text, seconds):
    """A number with a unit is a duration."""
    assert parse_duration(text) == pytest.approx(seconds)


def test_none_reclaims_nothing():
    """The schedule `none` is empty."""
    replay = parse_schedule("none").replay(1)

    assert replay.due(moment(step=10**6, since_first=10**6, in_attempt=10**6)) is None
    assert replay.seconds_to_next(moment()) is None


@pytest.mark.parametrize(
    ("text", "named", "remedy"),
    [
        ("", "''", "Write one of"),
        ("step:12,", "''", "Write one of"),
        ("steps:12", "'steps:12'", "step, at, every"),
        ("step", "'step'", "KIND:VALUE"),
        ("step:x", "'x'", "step:120"),
        ("step:-1", "'-1'", "step:120"),
        ("step:1.5", "'1.5'", "whole numbers"),
        ("at:30", "'30'", "at:30s"),
        ("at:30s@grace=121", "121", "0 to 120"),
        ("at:30s@grace=x", "'x'", "@grace=120"),
        ("at:30s@seed=1", "'seed'", "@grace"),
        ("at:30s@grace=1@grace=2", "twice", "once"),
        ("every:0s", "every:0s", "more than 0"),
        ("poisson:3", "'3'", "poisson:3/h"),
        ("poisson:0/h", "'0/h'", "above 0"),
        ("poisson:3/h@seed=a", "'a'", "@seed=7"),
        ("none,step:3", "'none'", "by itself"),
        ("trace:/no/such/file", "/no/such/file", "path to a trace"),
        ("trace:x@speed=0", "speed 0", "@speed=600"),
    ],
)
def test_a_bad_item_is_named_with_the_remedy(text, named, remedy):
    """A schedule that can't be used says which item, why, and what would be right."""
    with pytest.raises(SpecError) as caught:
        parse_schedule(text)

    assert named in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "[1",
        "[]",
        "{}",
        '{"metadata": {"gap_seconds": 0}, "data": [1]}',
        '{"metadata": {"gap_seconds": 3}, "data": []}',
        '{"metadata": {"gap_seconds": 3}, "data": [1, -1]}',
        '{"metadata": {"gap_seconds": 3}, "data": [true]}',
    ],
)
def test_a_bad_trace_file_shows_the_form(content):
    """A trace file of another form is refused when the schedule is read, with the right form."""
    with pytest.raises(SpecError, match=r"gap_seconds"):
        parse_schedule("trace:file.json", read=lambda path: content)


def test_a_step_is_due_when_it_is_reported_or_passed():
    """`step:120` fires at the first report of 120 or more, with SIGKILL at once."""
    replay = parse_schedule("step:120").replay(1)

    assert replay.due(moment()) is None
    assert replay.due(moment(step=119)) is None
    assert replay.due(moment(step=121)) == Reclaim(cause="step:120", grace_seconds=0)


def test_an_attempt_is_reclaimed_once_and_uses_one_item():
    """`step:60,step:60` kills attempt 0 at 60, and attempt 1 as soon as it reports 60 again."""
    replay = parse_schedule("step:60,step:60").replay(1)

    assert replay.due(moment(0, step=60)) is not None
    assert replay.due(moment(0, step=61)) is None
    assert replay.due(moment(1, step=50)) is None
    assert replay.due(moment(1, step=60)) is not None
    assert replay.due(moment(2, step=100)) is None


def test_step_zero_is_due_in_the_first_step():
    """`step:0` fires as soon as the process reports step 0."""
    assert parse_schedule("step:0").replay(1).due(moment(step=0)) is not None


def test_at_counts_from_the_first_training_and_is_never_lost():
    """`at:` items that come due while nothing runs fire when training runs again."""
    replay = parse_schedule("at:30s@grace=120,at:31s").replay(1)

    assert replay.seconds_to_next(moment(since_first=10)) == pytest.approx(20)
    assert replay.due(moment(0, since_first=29.9)) is None
    assert replay.due(moment(0, since_first=30)) == Reclaim(cause="at:30s@grace=120", grace_seconds=120)
    assert replay.seconds_to_next(moment(1, since_first=40)) == 0
    assert replay.due(moment(1, since_first=40, in_attempt=0)) is not None
    assert replay.seconds_to_next(moment(2, since_first=50)) is None


def test_every_counts_from_each_attempt():
    """`every:` fires in each attempt after the same time."""
    replay = parse_schedule("every:60s").replay(1)

    for attempt in range(3):
        assert replay.seconds_to_next(moment(attempt, in_attempt=20)) == pytest.approx(40)
        assert replay.due(moment(attempt, in_attempt=59)) is None
        assert replay.due(moment(attempt, in_attempt=60)) is not None


def test_poisson_has_its_rate_and_repeats_with_its_seed():
    """The seed fixes the moments, and their mean gap is that of the rate."""

    def gaps(seed):
        replay, found, last = parse_schedule(f"poisson:60/h@seed={seed}").replay(1), [], 0.0
        for attempt in range(400):
            now = last + replay.seconds_to_next(moment(attempt, trained=last))
            assert replay.due(moment(attempt, trained=now)) is not None
            found.append(now - last)
            last = now
        return found

    assert gaps(7) == gaps(7)
    assert gaps(7) != gaps(8)
    assert sum(gaps(7)) / 400 == pytest.approx(60, rel=0.15)


def test_a_trace_takes_capacity_and_gives_it_back():
    """A reclaim is due when fewer instances are available than the job has; capacity is back when they are."""
    schedule = parse_schedule("trace:f@speed=5", read=trace([2, 2, 1, 0, 2], gap_seconds=10))
    replay = schedule.replay(2)

    assert replay.seconds_to_capacity(0) == 0
    assert replay.seconds_to_next(moment(job=1)) == pytest.approx(3)
    assert replay.due(moment(job=3.9)) is None
    assert replay.due(moment(job=4)) is not None
    assert replay.seconds_to_capacity(4) == pytest.approx(4)
    assert replay.seconds_to_capacity(8) == 0
    assert schedule.replay(1).due(moment(job=4)) is None
    assert schedule.replay(1).due(moment(job=6)) is not None


def test_a_trace_repeats_and_may_never_suffice():
    """After its end a trace begins again; a job that needs more than it ever has waits for ever."""
    schedule = parse_schedule("trace:f", read=trace([1, 0], gap_seconds=1))

    assert schedule.replay(1).seconds_to_capacity(7.5) == pytest.approx(0.5)
    assert schedule.replay(2).seconds_to_capacity(0) == float("inf")
    assert parse_schedule("trace:f", read=trace([1])).replay(1).seconds_to_next(moment()) is None


def test_kinds_can_be_mixed():
    """Items of several kinds stand side by side; each attempt is taken by whichever is due first."""
    schedule = parse_schedule("step:5,every:60s")
    replay = schedule.replay(1)

    assert schedule.has_steps
    assert not parse_schedule("at:1s").has_steps
    assert replay.due(moment(0, step=1, in_attempt=60)).cause == "every:60s"
    assert replay.due(moment(1, step=5, in_attempt=1)).cause == "step:5"
