"""Distributions of any size in the same memory; start times; sums of a forecast."""

import math

import numpy as np
import pytest
from plan_rig import HOUR, pool, random_counts

from spotproof.plan import PlannedJob, forecast, forecast_bound
from spotproof.plan.distribution import Distribution
from spotproof.plan.forecast import start_times

JOB = PlannedJob(
    work_seconds=6 * HOUR, deadline_seconds=9 * HOUR, start_seconds=300, interval_seconds=600, usd_per_hour=3.0
)


def test_quantiles_are_right_to_a_thousandth():
    """Over nine orders of magnitude, taken in piece by piece; zeros and what never ends count."""
    values = np.random.default_rng(0).lognormal(3, 4, 20_000)
    values[:2000], values[2000:3000] = 0.0, math.inf
    found = Distribution()
    for part in np.split(values, 10):
        found.add(part)
    ordered = np.sort(values)
    for share in (0.05, 0.3, 0.5, 0.9):
        (quantile,) = found.quantiles([share])
        assert quantile == pytest.approx(ordered[math.ceil(share * 20_000) - 1], rel=1e-3)
    assert found.quantiles([0.99]) == [math.inf]
    assert found.mean == math.inf
    assert math.isnan(Distribution().quantiles([0.5])[0])


def test_start_times_cover_the_trace_and_stay_inside_it():
    """Batches together hold as many as were asked for; a long record is not run over its end, a short one is."""
    long, short = pool(random_counts(1, 300)), pool(random_counts(1, 60))
    for one, span in ((long, 300 * 600 - 9 * HOUR), (short, 60 * 600)):
        starts = np.concatenate(list(start_times([one], 9 * HOUR, 10_000, 0)))
        assert len(starts) == 10_000
        assert 0 <= starts.min() < span / 1000
        assert span * 0.999 < starts.max() <= span


def test_a_forecast_counts_what_was_played():
    """In batches as at once: shares, means, savings."""
    one = forecast(JOB, [pool(random_counts(2))], "greedy", num_jobs=9000, seed=3)
    assert one.deadline_share == 1
    assert one.spot_work_seconds + one.on_demand_work_seconds == pytest.approx(JOB.work_seconds)
    assert one.cost_usd.mean == pytest.approx((one.spot_seconds * 1 + one.on_demand_seconds * 3) / HOUR)
    undisturbed_usd = JOB.undisturbed_seconds * 3 / HOUR
    assert one.net_savings_percent == pytest.approx(100 * (1 - one.cost_usd.mean / undisturbed_usd))
    machine_usd = (one.spot_seconds + one.on_demand_seconds) * 3 / HOUR
    assert one.aws_savings_percent == pytest.approx(100 * (1 - one.cost_usd.mean / machine_usd))
    bound = forecast_bound(JOB, [pool(random_counts(2))], num_jobs=500, seed=3)
    assert bound.cost_usd.mean < one.cost_usd.mean


def test_counts_and_a_value_many_times_are_told_exactly():
    """Nobody is reclaimed 14.999 times, and what always takes 11115 s takes it at the median, too."""
    counts, same = Distribution(), Distribution()
    counts.add(np.array([0.0, 14, 15, 15, 499]))
    same.add(np.full(7, 11115.0))
    mixed = Distribution()
    mixed.add(np.array([14.5, 15, 15, 15]))

    assert counts.quantiles([0.2, 0.4, 0.6, 1.0]) == [0.0, 14.0, 15.0, 499.0]
    assert same.quantiles([0.01, 0.5, 0.99]) == [11115.0] * 3
    assert mixed.quantiles([0.25]) != [14.0]
    assert mixed.quantiles([0.25])[0] == pytest.approx(14.5, rel=1e-3)
