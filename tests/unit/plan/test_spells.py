"""Traces as up-times: thresholds, laps, statistics; traces drawn at random."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotproof import SpecError
from spotproof.plan import Lengths, fit_spells, generate_trace, spells_of
from spotproof.schedule import Trace


def spells(counts, num_instances=1, gap=10.0):
    return spells_of(Trace.from_ticks(gap, counts), num_instances)


def test_up_times_are_where_all_instances_are():
    """Three or more of them; the lap begins at an up-time, so that the one over the record's end is one."""
    found = spells([3, 2, 3, 4, 0, 3], num_instances=3)
    assert found.up_seconds.tolist() == [20, 20]
    assert found.down_seconds.tolist() == [10, 10]
    assert found.origin_seconds == 20
    assert found.statistics().availability == pytest.approx(4 / 6)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 3), st.floats(0, 2000))
def test_it_answers_as_the_trace_itself(counts, num_instances, at):
    """When capacity is next there and when it goes: over any number of laps, as the step function says."""
    trace = Trace.from_ticks(10.0, counts)
    up, down = (float(array[0]) for array in spells_of(trace, num_instances).next_up(np.array([at])))
    wait = trace.seconds_until(at, num_instances, wanted=True)

    if math.isinf(wait):
        assert math.isinf(up)
        return
    assert up == pytest.approx(at + wait, abs=1e-6)
    if abs(at / 10 - round(at / 10)) > 1e-6:
        middle = up + 1e-3
        assert down == pytest.approx(middle + trace.seconds_until(middle, num_instances, wanted=False), abs=1e-6)
    assert down > up


def test_capacity_that_never_changes():
    """Always or never: no lap, and nothing to fit."""
    always, never = spells([1]), spells([0, 0])
    assert always.next_up(np.array([7.0]))[1][0] == math.inf
    assert never.next_up(np.array([7.0]))[0][0] == math.inf
    assert always.statistics().availability == 1
    assert never.statistics().mean_up_seconds == 0
    for one in (always, never):
        with pytest.raises(SpecError, match="never changes"):
            fit_spells(one)


@pytest.mark.parametrize("variation", [0.5, 1.0, 1.4, 2.5, 4.8])
def test_drawn_times_have_the_mean_and_the_variation(variation):
    """From less than exponential to the heaviest that was recorded. Seed 1."""
    lengths = Lengths(mean_seconds=3600, variation=variation).draw(np.random.default_rng(1), 400_000)
    assert lengths.mean() == pytest.approx(3600, rel=0.05)
    assert lengths.std() / lengths.mean() == pytest.approx(variation, rel=0.1)
    assert (lengths > 0).all()


def test_the_median_is_met_where_it_can_be():
    """Mean 4 h, variation 2.5, median 40 min: most are short."""
    lengths = Lengths(mean_seconds=14400, variation=2.5, median_seconds=2400)
    drawn = lengths.draw(np.random.default_rng(1), 400_000)
    assert np.median(drawn) == pytest.approx(2400, rel=0.1)
    assert drawn.mean() == pytest.approx(14400, rel=0.05)


def test_a_trace_fitted_to_a_trace_is_like_it():
    """Mean and variation of up- and down-times come back. Seed 5."""
    first = spells_of(generate_trace(Lengths(mean_seconds=9000, variation=2.0), Lengths(mean_seconds=900), 4000, 5))
    second = spells_of(generate_trace(*fit_spells(first), 40_000, 6))
    was, found = first.statistics(), second.statistics()
    assert found.mean_up_seconds == pytest.approx(was.mean_up_seconds, rel=0.05)
    assert found.up_variation == pytest.approx(was.up_variation, rel=0.1)
    assert found.availability == pytest.approx(was.availability, abs=0.02)


def test_the_same_seed_draws_the_same_trace():
    """And another one another."""
    up, down = Lengths(mean_seconds=100, variation=2), Lengths(mean_seconds=50)
    assert generate_trace(up, down, 20, 3) == generate_trace(up, down, 20, 3)
    assert generate_trace(up, down, 20, 3) != generate_trace(up, down, 20, 4)
    with pytest.raises(SpecError, match="variation"):
        Lengths(mean_seconds=10, variation=0)
