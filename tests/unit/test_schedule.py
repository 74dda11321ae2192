"""The grammar of reclaim schedules and when their reclaims are due."""

import json
import re

import pytest

from spotproof.errors import SpecError
from spotproof.schedule import Moment, Reclaim, parse_duration, parse_schedule
from spotproof.schedule.trace_files import TraceError, parse_trace


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
        ("trace:x@polarity=yes", "'yes'", "available, unavailable"),
        ("trace:x@unit=w", "'w'", "ms, s"),
        ("trace:x@away=3s", "'away'", "@start"),
        ("step:3@away=x", "'x'", "@away=90s"),
        ("step:3@away=", "''", "@away=90s"),
        ("every:9999999999999999s", "not a duration", "every:30s"),
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


def test_a_trace_tells_how_much_of_each_part_is_there():
    """Parts need not begin where counts change, and a count may reach over several."""
    found = trace([2, 1, 1, 0], gap_seconds=10)
    (item,) = parse_schedule("trace:f", read=found).items
    assert item.trace.shares(1, 4) == pytest.approx([1, 1, 1, 0])
    assert item.trace.shares(2, 2) == pytest.approx([0.5, 0])
    assert item.trace.shares(1, 3) == pytest.approx([1, 1, 0.25])
    (never,) = parse_schedule("trace:f", read=trace([1])).items
    assert never.trace.shares(2, 2) == [0, 0]


def test_traces_that_come_along_have_names():
    """Wherever a file can stand; another name is refused, with those that there are."""
    (item,) = parse_schedule("trace:recorded:aws-p3@speed=60").items
    assert max(item.trace.available) == 32
    with pytest.raises(SpecError, match="aws-p3"):
        parse_schedule("trace:recorded:aws-p4")


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


def test_capacity_may_stay_away():
    """`@away` says how long; without it the platform decides."""
    replay = parse_schedule("step:5@away=90s,step:6@away=2m@grace=1m,step:7@away=0,step:8").replay(1)

    assert replay.due(moment(0, step=5)) == Reclaim(cause="step:5@away=90s", grace_seconds=0, away_seconds=90)
    assert replay.due(moment(1, step=6)).away_seconds == 120
    assert replay.due(moment(2, step=7)).away_seconds == 0
    assert replay.due(moment(3, step=8)).away_seconds is None


def test_a_trace_can_begin_later_and_be_turned_round():
    """`@start` skips trace time, whatever the speed; `@polarity=unavailable` reads 1 as gone."""
    schedule = parse_schedule("trace:f@speed=5@start=20s", read=trace([1, 1, 1, 0, 1], gap_seconds=10))
    assert schedule.replay(1).seconds_to_next(moment(job=0)) == pytest.approx(2)

    turned = parse_schedule("trace:f@polarity=unavailable", read=trace([0, 1, 0], gap_seconds=10))
    assert turned.replay(1).seconds_to_next(moment(job=0)) == pytest.approx(10)
    assert turned.replay(1).seconds_to_capacity(10) == pytest.approx(10)


def test_a_polarity_that_can_not_be_known_has_to_be_said():
    """Files with more in their metadata than the gap are the simulators', where 1 may mean preempted."""
    text = json.dumps({"metadata": {"gap_seconds": 600, "start_time": 3}, "data": [0, 1, 1]})
    with pytest.raises(SpecError, match=r"start_time.*preempted.*@polarity=available"):
        parse_schedule("trace:f", read=lambda path: text)

    said = parse_schedule("trace:f@polarity=available", read=lambda path: text)
    assert said.replay(1).seconds_to_capacity(0) == pytest.approx(600)
    with pytest.raises(SpecError, match="counts above 1"):
        parse_schedule("trace:f@polarity=unavailable", read=trace([2, 0]))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("0,0\n100,0\n100,2\n161,2\n161,1\n200,1", ""),
        ("0.0,0\n1.6666667,2\n2.6833333,1\n3.3333333,0", "@unit=m"),
        ("0,0\n100000,2\n161000,1\n200000,1", "@unit=ms"),
        ("100000,add,a\n100000,add,b\n161000,remove,a\n200000,remove,b", ""),
        (
            '[0, "no-op", {"nodes": [], "duration": 100000}]\n'
            '[100000, "add", {"nodes": ["a", "b"], "duration": 61000}]\n'
            '[161000, "remove", {"nodes": ["b"], "duration": 39000}]',
            "",
        ),
    ],
)
def test_traces_of_other_forms(text, options):
    """Fleet sizes, fleet logs and segments: nothing for 100 s, two for 61 s, one for 39 s, and so on."""
    schedule = parse_schedule(f"trace:a@b.csv{options}", read=lambda path: text)

    assert schedule.replay(2).seconds_to_capacity(0) == pytest.approx(100)
    assert schedule.replay(2).seconds_to_next(moment(job=101)) == pytest.approx(60)
    assert schedule.replay(1).seconds_to_next(moment(job=101)) == pytest.approx(99)
    assert schedule.replay(1).seconds_to_capacity(201) == pytest.approx(99)


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("0.0,1\n5.98,2", "", "unit of its times"),
        ("0,1\n60000,2\n180000,1", "", "unit of its times"),
        ("0,1\n9,2", "@polarity=unavailable", "fleet"),
        ("9,1\n3,2", "", "do not rise"),
        ("0,1\n9,-2", "", "'-2' is not a count"),
        ("0,add,a\n9,kill,a", "", "'kill' is none of"),
        ("0,add,a", "@unit=s", "milliseconds"),
        ("0,1\n9", "", "none of the forms"),
        ("", "", "it is empty"),
        ("[0, 1]", "", "line 1: it is not"),
    ],
)
def test_what_a_trace_leaves_open_is_asked_for(text, options, why):
    """A file that can't be understood for sure is refused, with what would settle it."""
    with pytest.raises(SpecError, match=why):
        parse_schedule(f"trace:f{options}", read=lambda path: text)


def test_a_constant_trace_holds_for_ever():
    """One count has no end."""
    replay = parse_schedule("trace:f", read=lambda path: "0,8").replay(8)

    assert replay.seconds_to_next(moment(job=10**9)) is None
    assert replay.seconds_to_capacity(10**9) == 0


def test_a_replay_goes_on_where_another_was():
    """With the position of another, a fresh replay gives the reclaims that would have followed there."""
    schedule = parse_schedule("step:5,at:9s,poisson:60/h@seed=3")
    one, other = schedule.replay(1), schedule.replay(1)
    assert one.due(moment(0, step=5)).cause == "step:5"
    for attempt in (1, 2):
        assert one.due(moment(attempt, trained=1e6)).cause == "poisson:60/h@seed=3"
    other.seek(json.loads(json.dumps(one.position())))

    assert other.due(moment(2, since_first=9)) is None, "attempt 2 had its reclaim"
    assert other.seconds_to_next(moment(3)) == one.seconds_to_next(moment(3))
    for replay in (one, other):
        assert replay.due(moment(3, step=5, since_first=9)).cause == "at:9s"
    for attempt in range(4, 30):
        assert other.seconds_to_next(moment(attempt, trained=50)) == one.seconds_to_next(moment(attempt, trained=50))
        assert other.due(moment(attempt, trained=1e6)) is not None
        assert one.due(moment(attempt, trained=1e6)) is not None


@pytest.mark.parametrize(
    ("text", "unit", "seconds"),
    [
        ("seconds,count\n0,4\n600,0\n1200,4\n", None, 600),
        ("Seconds, Count\r\n0,4\r\n600,0\r\n1200,4\r\n", "s", 600),
        ("hours,count\n0,4\n0.5,0\n1,4\n", None, 1800),
        ("milliseconds,count\n0,4\n60000,0\n120000,4\n", None, 60),
        ("milliseconds,what,node\n0,add,a\n60000,remove,a\n120000,add,a\n", None, 60),
    ],
)
def test_a_heading_says_the_unit(text, unit, seconds):
    """As files are written by hand and by pandas; nothing has to be guessed or asked then."""
    trace = parse_trace(text, unit=unit)

    assert trace.seconds_until(0, 1, wanted=False) == seconds
    assert trace.length_seconds == 2 * seconds


@pytest.mark.parametrize(
    ("text", "unit", "why"),
    [
        ("time,count\n0,4\n600,0\n", None, "line 1: 'time' is no time"),
        ("hours,count\n0,4\n600,0\n", "s", "line 1: its times are hours, not @unit=s"),
        ("seconds,what,node\n0,add,a\n", None, "line 1: lines of time,add|remove,node have milliseconds"),
        ("seconds,count\n", None, "it is empty"),
    ],
)
def test_a_heading_that_leaves_the_unit_open_or_contradicts(text, unit, why):
    """It is refused, rather than read as something else."""
    with pytest.raises(TraceError, match=re.escape(why)):
        parse_trace(text, unit=unit)
