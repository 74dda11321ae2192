"""Auto mode: from measured saves to the interval."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from spotproof import SpecError
from spotproof.checkpoint.journal import read_history
from spotproof.checkpoint.optimum import LONGEST_SECONDS, Choice, SaveCost, choose_interval, optimal_seconds
from spotproof.checkpoint.pace import Pace
from spotproof.checkpoint.tuning import IntervalTuner, checked_budget
from spotproof.checkpoint.uptime import PRIOR_SECONDS, MeanUptime, Uptime, mean_uptime, uptime_of
from spotproof.events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    Event,
    IntervalTuned,
    Progress,
    event_file,
    to_line,
)
from spotproof.storage import open_storage

ZERO = datetime(2026, 1, 1, tzinfo=timezone.utc)
RARE, OFTEN = MeanUptime(7200, 0), MeanUptime(60, 10)


def cost(stall: float, slowdown: float = 0.0, durable: float = 0.0) -> SaveCost:
    return SaveCost(stall_seconds=stall, slowdown_seconds=slowdown, durable_seconds=durable)


class Training:
    """Plays a training through on a clock of its own: steps, saves, commits, and what the tuner makes of them."""

    def __init__(self, tuner: IntervalTuner, *, step: float, stall: float, durable: float, slowed: float = 1.0) -> None:
        self.tuner, self.step, self.stall, self.durable, self.slowed = tuner, step, stall, durable, slowed
        self.now = self.last = self.spent = 0.0
        self.busy_until: float | None = None
        self.saves: list[float] = []
        self.choices: list[Choice] = []
        self.noise: Callable[[], float] = lambda: 1.0

    def save(self) -> None:
        """Make a save now."""
        if self.tuner.is_undecided:
            self.decide()
        stall = self.stall * self.noise()
        self.tuner.saved(stall, self.now - self.last, self.now)
        self.saves.append(self.now)
        self.last = self.now
        self.now += stall
        self.spent += stall
        self.busy_until = self.now + self.durable

    def decide(self) -> None:
        """Do what the callback does when there is something new."""
        choice = self.tuner.decide(self.now)
        if choice is not None:
            self.choices.append(choice)

    def run(self, saves: int) -> "Training":
        """Train until *saves* more have been made."""
        end = len(self.saves) + saves
        if not self.saves:
            self.save()
        while len(self.saves) < end:
            is_writing = self.busy_until is not None
            usual = self.step * self.noise()
            seconds = usual * (self.slowed if is_writing else 1.0)
            self.now += seconds
            self.spent += seconds - usual
            if self.busy_until is not None and self.now >= self.busy_until:
                self.busy_until = None
                self.tuner.committed(self.durable)
            if self.tuner.step(seconds, is_writing=is_writing):
                self.decide()
            waits = self.tuner.wants_idle_step and is_writing
            if self.now - self.last >= self.tuner.seconds and self.busy_until is None and not waits:
                self.save()
        return self

    @property
    def gaps(self) -> list[float]:
        """Return the times between saves."""
        return [b - a for a, b in zip(self.saves, self.saves[1:], strict=False)]


# -- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("save", "uptime", "budget", "seconds", "bound"),
    [
        (cost(0.05, 0.06), RARE, 0.02, optimal_seconds(0.11, 7200), "optimum"),
        (cost(0.0001), RARE, 0.02, optimal_seconds(0.002, 7200), "optimum"),
        (cost(60.0), RARE, 0.02, 3000, "budget"),
        (cost(60.0), RARE, 0.1, LONGEST_SECONDS, "longest"),
        (cost(0.1, 0.2), OFTEN, 0.02, 15, "budget"),
        (cost(0.1, 0.2), OFTEN, 0.2, optimal_seconds(0.3, 60), "optimum"),
        (cost(0.1, durable=10.0), OFTEN, 0.02, 1.2 * 10.1, "durable"),
        (cost(0.0001), OFTEN, 0.02, 1, "shortest"),
        (cost(5.0), OFTEN, 0.02, 60, "uptime"),
        (cost(5.0), MeanUptime(60, 1), 0.02, 250, "budget"),
        (cost(60.0), OFTEN, 0.02, optimal_seconds(60, 60), "uptime"),
    ],
)
def test_choice(save: SaveCost, uptime: MeanUptime, budget: float, seconds: float, bound: str) -> None:
    """The optimum, or the bound that stands before it; the sentence names what decided."""
    choice = choose_interval(save, uptime, budget)

    assert (choice.seconds, choice.bound) == (pytest.approx(seconds), bound)
    assert choice.reason.startswith("Saving every ")
    assert choice.reason.endswith(".")


def test_one_dear_save_is_looked_at_again() -> None:
    """A machine that slept in the first stall does not put off the next save for eight hours."""
    assert choose_interval(cost(600.0), RARE, 0.02).seconds == 30000
    assert choose_interval(cost(600.0), RARE, 0.02, is_measured_once=True).seconds == LONGEST_SECONDS


def test_reasons_can_be_read() -> None:
    """One sentence with what it was made of."""
    assert choose_interval(cost(0.05, 0.06), RARE, 0.02).reason == (
        "Saving every 40 s: this loses least where a save costs 110 ms (50 ms of stall, 60 ms of slowed steps) and an "
        "interruption comes every 2 h (as is assumed, for none was seen yet)."
    )
    assert choose_interval(cost(0.1, 0.2), OFTEN, 0.02).reason == (
        "Saving every 15 s: more often would go beyond the budget of 2 %, because a save costs 300 ms (100 ms of "
        "stall, 200 ms of slowed steps); 6.1 s would lose least where an interruption comes every 60 s (10 seen)."
    )


@pytest.mark.parametrize("wrong", [0, 1, -0.1, 2, True, float("nan")])
def test_budgets_that_are_none_are_refused(wrong: float) -> None:
    """A share lies between 0 and 1."""
    with pytest.raises(SpecError, match="overhead_budget"):
        checked_budget(wrong)


# -- steps beside a save ---------------------------------------------------------------------------------------------


def test_slowed_steps_are_found() -> None:
    """Ten steps that take half as long again for each save cost five steps."""
    pace = Pace()
    for _ in range(4):
        for step in range(30):
            pace.step(0.1 if step >= 10 else 0.15, is_writing=step < 10)
        pace.save_begins()

    assert pace.slowdown_seconds == pytest.approx(10 * 0.05)


def test_a_step_longer_than_the_save_is_counted_once() -> None:
    """Where one step outlasts the writing, its excess is the cost."""
    pace = Pace()
    for step in range(40):
        pace.step(10.2 if step % 10 == 0 else 10.0, is_writing=step % 10 == 0)
        if step % 10 == 9:
            pace.save_begins()

    assert pace.slowdown_seconds == pytest.approx(0.2)


def test_longer_steps_are_no_slowdown() -> None:
    """A training whose steps grow, with an epoch's end now and then, shows no cost of saves that cost nothing."""
    pace = Pace()
    for step in range(400):
        seconds = 0.1 * 1.002**step + (30.0 if step % 50 == 49 else 0.0)
        pace.step(seconds, is_writing=step % 40 < 10)
        if step % 40 == 39:
            pace.save_begins()

    assert pace.slowdown_seconds is not None
    assert pace.slowdown_seconds < 0.1


def test_nothing_is_known_without_steps_to_compare() -> None:
    """No figure is made up."""
    pace = Pace()
    for _ in range(50):
        pace.save_begins()
        pace.step(0.2, is_writing=True)

    assert pace.slowdown_seconds is None


# -- the tuner -------------------------------------------------------------------------------------------------------

OFTEN_KILLED = [Uptime(60, True)] * 10


@pytest.mark.parametrize("stall", [0.0001, 0.05, 2.0, 60.0])
@pytest.mark.parametrize("uptimes", [[], OFTEN_KILLED])
@pytest.mark.parametrize("durable_share", [0.5, 100.0])
def test_finds_the_interval_within_three_saves(stall: float, uptimes: list[Uptime], durable_share: float) -> None:
    """With stalls from a tenth of a millisecond to a minute, and storage slower than memory by any factor."""
    durable = stall * durable_share
    training = Training(IntervalTuner(0.02, uptimes=uptimes), step=0.1, stall=stall, durable=durable).run(4)
    before = len(training.choices)
    wanted = choose_interval(cost(stall, 0.0, durable), mean_uptime(uptimes, training.now), 0.02).seconds

    training.run(3)

    assert training.gaps[-1] == pytest.approx(wanted, rel=0.25, abs=0.2)
    assert len(training.choices) <= before + 1


def test_the_budget_counts_slowed_steps() -> None:
    """Stalls and slowed steps together stay below the budget, over the whole run and from early on."""
    training = Training(IntervalTuner(0.02, uptimes=OFTEN_KILLED), step=0.1, stall=0.05, durable=2.0, slowed=1.3)
    training.run(30)

    assert training.choices[-1].bound == "budget"
    assert training.choices[-1].cost.slowdown_seconds == pytest.approx(2.0 * 0.3 / 1.3, rel=0.2)
    assert training.spent / training.now < 0.021


def test_wild_first_measures_are_forgotten() -> None:
    """A first save a hundred times as dear as the rest costs one longer interval, not the run."""
    training = Training(IntervalTuner(0.02), step=0.1, stall=5.0, durable=50.0)
    training.save()
    training.stall, training.durable = 0.05, 0.5
    training.run(4)

    assert training.gaps[-1] == pytest.approx(optimal_seconds(0.05, mean_uptime([], training.now).seconds), rel=0.25)


def test_noise_does_not_make_it_swing() -> None:
    """Stalls and steps that scatter by a third each lead to few changes, and to intervals near the best one."""
    rng = random.Random(1)
    training = Training(IntervalTuner(0.02, uptimes=[Uptime(7200, True)] * 20), step=0.1, stall=0.2, durable=1.0)
    training.noise = lambda: rng.uniform(0.7, 1.3)
    training.run(5)
    early = len(training.choices)
    training.run(60)

    assert len(training.choices) - early <= 6
    best = optimal_seconds(0.2, 7200)
    assert all(best / 2 < gap < best * 2 for gap in training.gaps[5:])


def test_a_state_that_doubles_is_followed() -> None:
    """Three saves later the interval is that of the new cost, and the budget was kept meanwhile."""
    training = Training(IntervalTuner(0.02, uptimes=OFTEN_KILLED), step=0.1, stall=0.2, durable=1.0).run(6)
    assert training.gaps[-1] == pytest.approx(10, rel=0.25)
    training.stall, training.durable = 0.4, 2.0
    began, spent = training.now, training.spent
    training.run(5)

    assert training.gaps[-1] == pytest.approx(20, rel=0.25)
    assert (training.spent - spent) / (training.now - began) < 0.025


def test_steps_longer_than_the_interval() -> None:
    """Each step falls on a save; now and then one is left alone, so that there is something to compare with."""
    training = Training(IntervalTuner(0.2, uptimes=OFTEN_KILLED), step=10.0, stall=0.01, durable=0.5, slowed=1.5)
    training.run(40)

    cost_found = training.tuner.cost
    assert training.gaps[0] < 16
    assert cost_found is not None
    assert cost_found.slowdown_seconds == pytest.approx(5.0, rel=0.1)
    best = choose_interval(cost_found, mean_uptime(OFTEN_KILLED, training.now), 0.2).seconds
    assert best / 1.2 <= training.gaps[-1] <= best * 1.2 + 15


def test_one_dear_save_delays_the_next() -> None:
    """What it took beyond the budget is waited for, but not for hours."""
    tuner = IntervalTuner(0.02, uptimes=OFTEN_KILLED[:2])
    training = Training(tuner, step=0.1, stall=0.2, durable=0.5).run(6)
    usual = tuner.seconds
    training.stall = 500.0
    training.save()

    assert tuner.seconds == pytest.approx(4 * usual, rel=0.1)


def test_a_resumed_attempt_begins_with_what_the_last_one_knew() -> None:
    """Where a machine lasts a minute, there is no time to learn anew."""
    tuner = IntervalTuner(0.02, uptimes=OFTEN_KILLED, costs=[cost(0.02, 0.01, 0.1)] * 5)
    choice = tuner.decide(0.0)

    assert choice is not None
    assert tuner.seconds == choice.seconds == pytest.approx(optimal_seconds(0.03, mean_uptime(OFTEN_KILLED).seconds))


# -- uptimes ---------------------------------------------------------------------------------------------------------


def lines(*events: Event) -> bytes:
    return "".join(map(to_line, events)).encode()


def started(seconds: float) -> Event:
    return AttemptStarted(attempt=0, run_id="r", config={}, versions={}, at=ZERO + timedelta(seconds=seconds))


def progress(seconds: float) -> Event:
    return Progress(attempt=0, step=1, epoch=0, at=ZERO + timedelta(seconds=seconds))


def ended(outcome: str, seconds: float) -> Event:
    return AttemptEnded(attempt=0, outcome=outcome, step=1, at=ZERO + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("events", "uptime"),
    [
        (lines(started(0), progress(10), progress(50)), Uptime(50, True)),
        (lines(started(0), progress(10), ended("notice", 50)), Uptime(50, True)),
        (lines(started(0), progress(10), ended("finished", 50)), Uptime(50, False)),
        (lines(started(0), progress(10), ended("error", 50)), Uptime(50, False)),
        (lines(started(0), progress(9), ended("finished", 10), progress(11), progress(60)), Uptime(60, True)),
        (lines(started(0)), None),
        (lines(started(0), ended("error", 1)), None),
        (b"", None),
        (b"\xff\x00 no json", None),
    ],
)
def test_how_an_attempt_ended(events: bytes, uptime: Uptime | None) -> None:
    """Kills and notices interrupt; ends, errors, and attempts that never trained do not."""
    assert uptime_of(events) == uptime


def test_clocks_that_jump_cost_a_gap() -> None:
    """Backwards, or by a year: the rest counts."""
    jumps = [started(0), progress(10), progress(3e7), progress(3e7 + 20), progress(5), progress(35)]
    assert uptime_of(lines(*jumps)) == Uptime(60, True)


def test_a_torn_line_is_no_end() -> None:
    """A file that was being written when the machine went away counts up to there."""
    whole = lines(started(0), progress(10), progress(50), ended("finished", 60))
    assert uptime_of(whole[:-40]) is not None
    for cut in range(len(whole)):
        uptime = uptime_of(whole[:cut])
        assert uptime is None or 0 <= uptime.seconds <= 60


def test_mean_uptime() -> None:
    """Assumed at first, with care; three interruptions a minute apart all but settle it; quiet hours lengthen it."""
    assert PRIOR_SECONDS / 10 < mean_uptime([]).seconds < PRIOR_SECONDS / 5
    assert mean_uptime([]).interruptions == 0
    assert 120 < mean_uptime([Uptime(60, True)]).seconds < 300
    assert mean_uptime([Uptime(60, True)] * 3).seconds < 100
    assert mean_uptime([Uptime(60, True)] * 30).seconds < 66
    assert mean_uptime([Uptime(60, True)] * 3, current_seconds=7200).seconds > 2000
    assert mean_uptime([Uptime(0, True)] * 100).seconds >= 1
    assert mean_uptime([], current_seconds=3600).seconds > PRIOR_SECONDS
    assert mean_uptime([], current_seconds=20 * PRIOR_SECONDS).seconds > 20 * PRIOR_SECONDS


def test_attempts_that_ended_by_themselves_are_quiet_time() -> None:
    """Their running time counts, their end does not."""
    assert mean_uptime([Uptime(5, False)] * 50) == mean_uptime([], current_seconds=250)


def test_history_passes_over_what_is_damaged(tmp_path) -> None:
    """Missing, torn and foreign event files of earlier attempts; this attempt's own does not count."""
    storage = open_storage(tmp_path)
    assert read_history(storage, before=0).uptimes == ()
    for attempt, content in enumerate([b"\x80garbage", lines(started(0), progress(60)), b"", lines(progress(1))[:20]]):
        storage.put(event_file(attempt), [content])
    at = ZERO + timedelta(seconds=30)
    saves = [
        CheckpointCommitted(
            attempt=5, at=at, step=n, stall_seconds=n, durable_seconds=1.0, total_bytes=1, written_bytes=1
        )
        for n in (1, 2)
    ]
    tuned = IntervalTuned(
        attempt=5,
        at=at,
        seconds=1.0,
        bound="optimum",
        optimum_seconds=1.0,
        stall_seconds=1.0,
        slowdown_seconds=0.5,
        durable_seconds=1.0,
        mean_uptime_seconds=1.0,
        interruptions=0,
        budget=0.02,
        reason="",
    )
    storage.put(event_file(5), [lines(started(0), progress(20), *saves, tuned, ended("notice", 40))])
    storage.put(event_file(6), [lines(progress(1e6))])

    history = read_history(storage, before=6)

    assert history.uptimes == (Uptime(60, True), Uptime(0, True), Uptime(40, True))
    assert [(save.stall_seconds, save.slowdown_seconds) for save in history.costs] == [(1, 0.5), (2, 0.5)]
