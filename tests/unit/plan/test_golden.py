"""Rows of figures on the recorded traces that come along: what changes them is a change of the model."""

import numpy as np
import pytest

from spotproof.plan import PlannedJob, Pool, omniscient_bound, play, spells_of
from spotproof.schedule.recorded import read_recorded
from spotproof.schedule.trace_files import parse_trace

HOUR = 3600.0
STARTS = np.arange(0, 24 * HOUR, 600.0)


def pool(name, num_instances):
    spells = spells_of(parse_trace(read_recorded(name)), num_instances)
    return Pool(name=name, spells=spells, usd_per_hour=0.9731)


@pytest.mark.parametrize(
    ("name", "num_instances", "policy", "cost", "reclaims", "finish_hours"),
    [
        ("aws-p3", 20, "spot", 10.127, 6.535, 15.531),
        ("aws-p3", 20, "greedy", 20.927, 2.333, 9.621),
        ("aws-p3", 20, "uniform-progress", 19.742, 2.528, 9.501),
        ("aws-p3", 20, "omniscient", 13.768, 0, 0),
        ("aws-p3", 28, "spot", 20.254, 40.41, 51.418),
        ("aws-p3", 28, "greedy", 25.15, 1.708, 9.591),
        ("aws-p3", 28, "uniform-progress", 26.262, 2.243, 9.465),
        ("aws-p3", 28, "omniscient", 22.924, 0, 0),
        ("aws-g4dn-us-east-1c", 6, "spot", 9.018, 4.653, 13.076),
        ("aws-g4dn-us-east-1c", 6, "greedy", 17.783, 1.229, 9.47),
        ("aws-g4dn-us-east-1c", 6, "uniform-progress", 17.906, 1.91, 9.251),
        ("aws-g4dn-us-east-1c", 6, "omniscient", 12.411, 0, 0),
    ],
)
def test_golden_rows(name, num_instances, policy, cost, reclaims, finish_hours):
    """8 h of work in 10 h, 12 min of start-up, saves each 15 min: means over 144 starts."""
    job = PlannedJob(
        work_seconds=8 * HOUR,
        deadline_seconds=10 * HOUR,
        start_seconds=720,
        interval_seconds=900,
        save_seconds=5,
        durable_seconds=60,
        usd_per_hour=3.06,
    )
    if policy == "omniscient":
        assert omniscient_bound(job, [pool(name, num_instances)], STARTS).cost_usd.mean() == pytest.approx(
            cost, abs=5e-3
        )
        return
    found = play(job, [pool(name, num_instances)], policy, STARTS)
    assert found.cost_usd.mean() == pytest.approx(cost, abs=5e-3)
    assert found.reclaims.mean() == pytest.approx(reclaims, abs=5e-3)
    assert found.finish_seconds.mean() / HOUR == pytest.approx(finish_hours, abs=5e-3)
