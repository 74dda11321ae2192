"""Intervals: published numbers, the closed form beside the simulation, replay, a factor of two."""

import numpy as np
import pytest

from spotproof import SpecError
from spotproof.checkpoint.optimum import optimal_seconds
from spotproof.plan import (
    Lengths,
    PlannedJob,
    Pool,
    compare_intervals,
    daly_seconds,
    expected_makespan_seconds,
    generate_trace,
    play,
    replayed_running,
    spells_of,
    young_seconds,
)

HOUR = 3600.0


def job(**fields):
    return PlannedJob(**{"work_seconds": 48 * HOUR, "deadline_seconds": 200 * HOUR, "interval_seconds": 1800, **fields})


@pytest.mark.parametrize(
    ("cost", "mean", "young", "daly", "exact"),
    [
        (5, HOUR, 189.7, 186.4, 186.4),
        (60, 4 * HOUR, 1314.5, 1274.8, 1274.8),
        (120, HOUR, 929.5, 851.2, 851.3),
        (600, HOUR, 2078.5, 1697.7, 1699.2),
    ],
)
def test_the_formulas_give_known_numbers(cost, mean, young, daly, exact):
    """Work between two saves, in seconds, as it was reckoned elsewhere."""
    assert young_seconds(cost, mean) - cost == pytest.approx(young, abs=0.06)
    assert daly_seconds(cost, mean) - cost == pytest.approx(daly, abs=0.06)
    assert optimal_seconds(cost, mean) - cost == pytest.approx(exact, abs=0.06)


def test_daly_where_saves_are_dear():
    """A save of twice the up-time or more: one up-time of work."""
    assert daly_seconds(100, 50) == 150


@pytest.mark.parametrize(("mean_hours", "hours"), [(4, 55.175), (1, 76.231)])
def test_the_closed_form_is_dalys(mean_hours, hours):
    """48 h of work, 1800 s between saves of 60 s, 180 s of restart, 420 s away: as it was reckoned elsewhere."""
    one = job(interval_seconds=1860, save_seconds=60, start_seconds=180)
    found = expected_makespan_seconds(one, mean_hours * HOUR, 420)
    assert found / HOUR == pytest.approx(hours, abs=0.001)


@pytest.mark.parametrize(
    ("mean", "interval", "save", "start", "durable", "down"),
    [
        (4 * HOUR, 1860, 60, 180, 0, 420),
        (HOUR, 1860, 60, 180, 0, 420),
        (HOUR, 600, 5, 300, 120, 1800),
        (2 * HOUR, 900, 1, 60, 600, 7200),
    ],
)
def test_the_closed_form_agrees_with_the_simulation(mean, interval, save, start, durable, down):
    """Within one percent, at rare and frequent reclaims, with saves that take long to be durable. Seed 0."""
    one = job(
        work_seconds=160 * HOUR,
        interval_seconds=interval,
        save_seconds=save,
        start_seconds=start,
        durable_seconds=durable,
    )
    ups = Lengths(mean_seconds=mean)
    trace = generate_trace(ups, Lengths(mean_seconds=down), 200_000, 0)
    pool = Pool(name="exponential", spells=spells_of(trace), usd_per_hour=1)
    shorter = PlannedJob(**{name: getattr(one, name) for name in one.__slots__} | {"work_seconds": 40 * HOUR})

    starts = np.linspace(0, trace.length_seconds, 2000)
    # The difference of two lengths leaves out what the first start and the last save are different in.
    played = play(one, [pool], "spot", starts).finish_seconds - play(shorter, [pool], "spot", starts).finish_seconds

    found = spells_of(trace).statistics()
    expected = expected_makespan_seconds(one, found.mean_up_seconds, found.mean_down_seconds) * 0.75
    assert np.isfinite(played).all()
    assert played.mean() == pytest.approx(expected, rel=0.01)


def test_one_up_time_is_no_reason_to_save_rarely():
    """An interval that ends just before the one reclaim that was recorded keeps more, by chance: it is not chosen."""
    found = compare_intervals(job(save_seconds=1, durable_seconds=40), 66_665.0, np.array([66_665.0]))
    assert found.chosen.interval_seconds == pytest.approx(young_seconds(1, 66_665), rel=0.05)
    assert found.chosen.replayed_running <= found.half.replayed_running
    assert found.chosen.replayed_running <= found.double.replayed_running


def test_replay_of_exponential_up_times_finds_the_exact_optimum():
    """And costs at it what the formula says. Seed 2."""
    ups = Lengths(mean_seconds=HOUR).draw(np.random.default_rng(2), 50_000)
    one = job(save_seconds=5, start_seconds=60, durable_seconds=20)

    found = compare_intervals(one, float(ups.mean()), ups)

    replay = found.rows[-1]
    assert replay.name == "replay"
    assert replay.interval_seconds == pytest.approx(optimal_seconds(5, HOUR), rel=0.15)
    assert replay.replayed_running == pytest.approx(replay.expected_running, rel=0.01)
    assert found.chosen.interval_seconds == replay.interval_seconds


def test_a_factor_of_two_costs_little_but_costs():
    """Half and twice the interval lose a quarter more than the best one, as a share of what saving costs."""
    found = compare_intervals(job(save_seconds=5, start_seconds=0), HOUR, None)
    base = found.chosen.expected_running - 1
    for row in (found.half, found.double):
        assert 1.1 < (row.expected_running - 1) / base < 1.4
    assert min(found.curve, key=lambda row: row.expected_running).interval_seconds == pytest.approx(
        found.chosen.interval_seconds, rel=0.1
    )


def test_heavy_tailed_up_times_ask_for_another_interval_than_their_mean():
    """Most up-times are short: what the mean recommends keeps less than what the replay does."""
    ups = Lengths(mean_seconds=4 * HOUR, variation=4.0, median_seconds=1200).draw(np.random.default_rng(3), 4000)
    one = job(save_seconds=30, start_seconds=60, durable_seconds=60)
    found = compare_intervals(one, float(ups.mean()), ups)
    rows = {row.name: row for row in found.rows}
    assert rows["replay"].interval_seconds > 1.1 * rows["exact"].interval_seconds
    assert rows["replay"].replayed_running < rows["exact"].replayed_running


def test_an_interval_waits_for_the_save_before():
    """Never shorter than a save takes to be durable, however many reclaims there are."""
    found = compare_intervals(job(save_seconds=0.01, durable_seconds=300), 600, None)
    assert found.chosen.interval_seconds >= 300


def test_nothing_kept_is_infinitely_dear():
    """Up-times that are shorter than a start-up and an interval."""
    running = replayed_running(job(start_seconds=60), np.array([100.0, 10.0]), np.array([90.0, 80.0]))
    assert running[0] == np.inf
    assert 1 < running[1] < np.inf
    with pytest.raises(SpecError, match="mean up-time"):
        compare_intervals(job(), 0.0, None)
