"""What must hold for any trace, job and start: deadlines, the bound, slack, sums, determinism."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotproof.plan import POLICIES, Course, PlannedJob, Pool, forecast, omniscient_bound, play, spells_of
from spotproof.schedule import Trace

STARTS = np.array([0.0, 1234.5, 6000.0, 40_000.0])


@st.composite
def courses(draw):
    """A price that stands still, or moves."""
    changes = draw(st.lists(st.tuples(st.integers(1, 200), st.floats(0.2, 3.0)), max_size=6))
    if not changes:
        return None
    lengths = np.array([minutes * 60.0 for minutes, _ in changes])
    factors = np.array([factor for _, factor in changes])
    mean = (lengths * factors).sum() / lengths.sum()
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return Course(starts=starts, factors=factors / mean, length_seconds=float(lengths.sum()))


@st.composite
def pools(draw):
    """One to three pools of any up- and down-times, prices, fixed or moving, and speeds."""
    found, gap, size = [], draw(st.sampled_from([600.0, 3600.0])), draw(st.integers(1, 30))
    for index in range(draw(st.integers(1, 3))):
        counts = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
        usd, speed = draw(st.floats(0.1, 2.9)), draw(st.sampled_from([1.0, 1.0, 0.5, 1.5]))
        spells = spells_of(Trace.from_ticks(gap, counts))
        found.append(Pool(name=str(index), spells=spells, usd_per_hour=usd, speed=speed, course=draw(courses())))
    return found


@st.composite
def jobs(draw):
    """Any job whose deadline can be kept on demand."""
    save = draw(st.sampled_from([0.0, 1.0, 30.0]))
    interval = draw(st.sampled_from([0.0, 300.0, 1800.0])) if save == 0 else draw(st.sampled_from([120.0, 900.0]))
    one = PlannedJob(
        work_seconds=draw(st.floats(600, 8 * 3600)),
        deadline_seconds=1e9,
        start_seconds=draw(st.sampled_from([0.0, 60.0, 720.0])),
        interval_seconds=interval,
        save_seconds=save,
        durable_seconds=draw(st.sampled_from([0.0, 20.0, 400.0])),
        usd_per_hour=3.0,
    )
    return replace(one, deadline_seconds=one.undisturbed_seconds * draw(st.floats(1.0, 3.0)))


@settings(max_examples=60, deadline=None)
@given(jobs(), pools())
def test_deadlines_are_kept_where_they_can_be(job, capacity):
    """By every policy that may go on demand, whatever capacity does."""
    for policy in ("on-demand", "greedy", "uniform-progress"):
        found = play(job, capacity, policy, STARTS)
        assert (found.finish_seconds <= job.deadline_seconds + 1e-3).all(), policy


@settings(max_examples=60, deadline=None)
@given(jobs(), pools())
def test_no_policy_beats_the_bound(job, capacity):
    """Whoever is done in time has paid at least as much as who knew everything."""
    least = omniscient_bound(job, capacity, STARTS).cost_usd
    for policy in POLICIES:
        found = play(job, capacity, policy, STARTS)
        in_time = found.finish_seconds <= job.deadline_seconds + 1e-3
        assert (found.cost_usd[in_time] >= least[in_time] * (1 - 1e-6) - 1e-6).all(), policy


@settings(max_examples=60, deadline=None)
@given(jobs(), pools(), st.floats(1.0, 2.0))
def test_more_slack_never_costs_the_omniscient_more(job, capacity, factor):
    """A later deadline allows all that an earlier one does."""
    later = replace(job, deadline_seconds=job.deadline_seconds * factor)
    least, now = (omniscient_bound(one, capacity, STARTS).cost_usd for one in (later, job))
    assert (least <= now * (1 + 1e-6) + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(jobs(), pools())
def test_time_and_work_add_up(job, capacity):
    """Machines and waits make the finish; work done on both kinds is the work there was."""
    for policy in POLICIES:
        found = play(job, capacity, policy, STARTS)
        is_done = np.isfinite(found.finish_seconds)
        spent = found.spot_seconds + found.on_demand_seconds + found.waiting_seconds
        assert spent[is_done] == pytest.approx(found.finish_seconds[is_done], abs=1e-2)
        work = found.spot_work_seconds + found.on_demand_work_seconds
        assert work[is_done] == pytest.approx(job.work_seconds, abs=1e-3)
        for values in astuple(found):
            assert (values >= -1e-6).all()


@settings(max_examples=60, deadline=None)
@given(jobs(), pools(), st.sampled_from(POLICIES), st.integers(0, 5))
def test_the_same_seed_gives_the_same_forecast(job, capacity, policy, seed):
    """And a job's outcome does not depend on which others are played beside it."""
    assert forecast(job, capacity, policy, num_jobs=50, seed=seed) == forecast(
        job, capacity, policy, num_jobs=50, seed=seed
    )
    together = play(job, capacity, policy, STARTS)
    for index in range(len(STARTS)):
        alone = play(job, capacity, policy, STARTS[index : index + 1])
        assert alone.finish_seconds[0] == together.finish_seconds[index]
        assert alone.cost_usd[0] == together.cost_usd[index]
