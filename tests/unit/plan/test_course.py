"""A moving price: what a stretch of time costs, when it changes, and what it makes of a job."""

import numpy as np
import pytest
from plan_rig import HOUR, pool

from spotproof.plan import Course, PlannedJob, omniscient_bound, play

COURSE = Course(starts=np.array([0.0, 600.0]), factors=np.array([0.5, 2.0]), length_seconds=900.0)
"""Ten minutes at a half, five at twice: a mean of 1."""


def test_seconds_are_weighed_over_laps():
    """Inside a stretch, over a change, over the end and over whole laps."""
    begin, end = np.array([0.0, 500.0, 800.0, 0.0, 100.0]), np.array([100.0, 700.0, 1000.0, 9000.0, 100.0])
    assert COURSE.weighted_seconds(begin, end) == pytest.approx([50, 250, 250, 9000, 0])


def test_changes_lie_ahead():
    """Also at the very moment of one."""
    assert list(COURSE.next_change(np.array([0.0, 599.0, 600.0, 900.0, 1000.0]))) == [600, 600, 900, 1500, 1500]
    assert list(COURSE.at(np.array([0.0, 600.0, 899.0, 900.0]))) == [0.5, 2, 2, 0.5]


def test_a_job_pays_what_the_hour_costs():
    """The same job, created when the price is low and when it is high; the bound waits for the low one."""
    moving = Course(starts=np.array([0.0, HOUR]), factors=np.array([0.5, 1.5]), length_seconds=2 * HOUR)
    capacity = [pool([1], usd_per_hour=10.0, course=moving)]
    job = PlannedJob(work_seconds=HOUR, deadline_seconds=3 * HOUR, usd_per_hour=30.0)
    starts = np.array([0.0, HOUR, 1.5 * HOUR])

    assert play(job, capacity, "spot", starts).cost_usd == pytest.approx([5, 15, 10])
    assert omniscient_bound(job, capacity, starts).cost_usd == pytest.approx([5, 5, 5], rel=1e-3)
