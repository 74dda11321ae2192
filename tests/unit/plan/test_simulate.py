"""Jobs played thousands at once do what one job played second by second does."""

import math

import numpy as np
import pytest
from plan_rig import HOUR, play_slowly, pool, random_counts

from spotproof import SpecError
from spotproof.plan import POLICIES, PlannedJob, play
from spotproof.plan.simulate import LONGEST_SECONDS


def job(**fields):
    return PlannedJob(
        **{
            "work_seconds": 10 * HOUR,
            "deadline_seconds": 14 * HOUR,
            "start_seconds": 300,
            "interval_seconds": 900,
            "save_seconds": 10,
            "durable_seconds": 60,
            "usd_per_hour": 3.0,
            **fields,
        }
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_it_agrees_with_one_job_played_second_by_second(policy):
    """Finish, cost and reclaims of every policy, at many starts. The slow one moves in whole seconds only."""
    counts = random_counts(3)
    starts = np.arange(0, 300 * 600, 29 * 600.0)
    found = play(job(), [pool(counts)], policy, starts)

    close = 0
    for index, start in enumerate(starts):
        finish, cost, reclaims = play_slowly(job(), counts, 600, 1.0, policy, start)
        is_close = (
            abs(found.finish_seconds[index] - finish) < 30
            and abs(found.cost_usd[index] - cost) < 0.05
            and found.reclaims[index] == reclaims
        )
        close += is_close
    # At a knife's edge one second decides, and then the two go different ways.
    assert close >= len(starts) - 1


def test_spot_by_hand():
    """Up 1 h, down 1 h: 300 s of start, three saves durable, the fourth not."""
    counts = [1] * 6 + [0] * 6
    one = job(work_seconds=2 * 890 + 3 * 890 + 100, interval_seconds=900)

    found = play(one, [pool(counts)], "spot", np.array([0.0]))

    # 3600 - 300 = 3300 s of training: 3 saves (durable at 2760), 600 s of the fourth interval are lost.
    assert found.reclaims[0] == 1
    assert found.lost_seconds[0] == pytest.approx(600)
    assert found.waiting_seconds[0] == pytest.approx(3600)
    left = one.work_seconds - 3 * 890
    assert found.finish_seconds[0] == pytest.approx(7200 + 300 + left + 2 * 10)
    assert found.cost_usd[0] == pytest.approx((3600 + 300 + left + 20) / HOUR)


def test_a_save_that_is_not_durable_is_lost():
    """The loss counts from the last durable save: with 700 s until then, the third save does not count."""
    counts = [1] * 6 + [0] * 6
    late = play(job(durable_seconds=700), [pool(counts)], "spot", np.array([0.0]))
    soon = play(job(durable_seconds=0), [pool(counts)], "spot", np.array([0.0]))
    assert late.lost_seconds[0] > soon.lost_seconds[0] + 890 - 1


@pytest.mark.parametrize("policy", ["on-demand", "greedy", "uniform-progress"])
def test_without_any_spot_it_runs_on_demand_in_time(policy):
    """One start, and done by the deadline, though nobody knew that spot would never come."""
    found = play(job(), [pool([0])], policy, np.array([0.0, 5.0]))
    assert (found.finish_seconds <= 14 * HOUR).all()
    assert found.cost_usd == pytest.approx(job().undisturbed_seconds * 3 / HOUR)


def test_a_job_that_gets_nowhere_is_given_up():
    """Up-times shorter than a start-up and an interval keep nothing, nor will the next lap of the trace."""
    found = play(job(), [pool([1, 0])], "spot", np.array([0.0]))
    assert math.isinf(found.finish_seconds[0])
    assert found.spot_work_seconds[0] == 0
    assert found.cost_usd[0] > 0


def test_a_job_that_is_slow_is_given_up_after_28_days():
    """Where the service ends it."""
    found = play(job(work_seconds=500 * HOUR), [pool([1, 1, 1, 0, 0, 0, 0, 0, 0])], "spot", np.array([0.0]))
    assert math.isinf(found.finish_seconds[0])
    assert found.spot_seconds[0] + found.waiting_seconds[0] == pytest.approx(LONGEST_SECONDS)


def test_the_cheaper_pool_goes_first_and_a_second_one_helps():
    """Of two that are there, the cheaper for its work; where one goes, the other takes over."""
    first, second = pool([1, 1, 0, 0], 7200, 1.0, name="a"), pool([0, 0, 1, 1], 7200, 2.0, name="b")
    both = play(job(), [second, first], "spot", np.array([0.0]))
    assert both.waiting_seconds[0] == pytest.approx(0, abs=1e-3)
    assert both.reclaims[0] == 2
    dear = pool([1], 7200, 1.5, name="dear")
    assert play(job(), [dear, pool([1], 600, 1.0)], "spot", np.array([0.0])).cost_usd[0] == pytest.approx(
        job().undisturbed_seconds / HOUR
    )
    fast = pool([1], 600, 1.5, speed=2.0)
    quick = play(job(), [fast, pool([1], 600, 1.0)], "spot", np.array([0.0]))
    assert quick.finish_seconds[0] < 5.2 * HOUR


def test_all_instances_or_none():
    """A job of two instances runs while there are two."""
    found = play(job(), [pool([2, 1, 2, 2], 7200, num_instances=2)], "spot", np.array([0.0]))
    assert found.reclaims[0] == 2
    assert found.waiting_seconds[0] == pytest.approx(2 * 7200, abs=1)


def test_uniform_progress_goes_back_to_spot():
    """It works on demand while behind, and returns once spot is there and it is two start-ups ahead."""
    counts = [0] * 18 + [1] * 200
    found = play(job(), [pool(counts)], "uniform-progress", np.array([0.0]))
    assert 0 < found.on_demand_seconds[0] < 5 * HOUR
    assert found.spot_seconds[0] > 5 * HOUR
    assert found.finish_seconds[0] <= 14 * HOUR


@pytest.mark.parametrize(
    "fields",
    [
        {"work_seconds": 0},
        {"deadline_seconds": -1},
        {"start_seconds": -1},
        {"durable_seconds": math.nan},
        {"interval_seconds": 10},
    ],
)
def test_a_job_that_makes_no_sense_is_refused(fields):
    """Negative times, none at all, a save that takes the whole interval."""
    with pytest.raises(SpecError, match=next(iter(fields)).partition("_")[0] + r"|save"):
        job(**fields)
