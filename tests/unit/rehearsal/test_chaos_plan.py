"""What chaos draws for a job."""

import pytest

from spotproof.errors import SpecError
from spotproof.local import parse_s3_faults, parse_sync_faults
from spotproof.rehearsal.chaos import plan_chaos
from spotproof.schedule import parse_schedule

KINDS = {"torn", "lost", "corrupt", "late", "reorder", "stall", "no-flush", "download-fail", "download-lost"}


def plan(seed, num_steps=300, num_seconds=20.0, num_bytes=10**8):
    return plan_chaos(seed, num_steps=num_steps, num_seconds=num_seconds, num_bytes=num_bytes)


def test_the_same_seed_draws_the_same():
    """A seed and a job make one plan; another seed makes another."""
    assert plan(7) == plan(7, num_seconds=99.0), "how fast the machine was must not matter"
    assert plan(7) != plan(8)


@pytest.mark.parametrize("seed", range(50))
def test_every_kind_of_fault_is_let_in(seed):
    """All faults are there, each in an attempt that happens, and reclaims lie inside the job in rising order."""
    drawn = plan(seed)
    sync = parse_sync_faults(drawn.sync_faults).faults
    steps = [item.value for item in parse_schedule(drawn.reclaim).items]

    assert {fault.kind for fault in sync} == KINDS
    assert all(fault.attempts[0] == fault.attempts[1] <= len(steps) for fault in sync)
    assert {fault.kind for fault in parse_s3_faults(drawn.s3_faults).faults} == {
        "error",
        "throttle",
        "reset",
        "latency",
        "bandwidth",
    }
    assert steps == sorted(steps)
    assert 0 < steps[0] < steps[-1] < 300
    graces = [item.grace_seconds for item in parse_schedule(drawn.reclaim).items]
    assert graces[next(fault.attempts[0] for fault in sync if fault.kind == "no-flush")] > 0
    assert any(item.away_seconds for item in parse_schedule(drawn.reclaim).items)


@pytest.mark.parametrize("num_steps", [3, 4, 5, 9, 20, 10**6])
def test_short_and_long_jobs(num_steps):
    """Few steps make fewer reclaims, each inside the job; the faults share the attempts."""
    for seed in range(20):
        drawn = plan(seed, num_steps=num_steps)
        steps = [item.value for item in parse_schedule(drawn.reclaim).items]
        assert all(1 <= step < num_steps for step in steps)
        assert {fault.kind for fault in parse_sync_faults(drawn.sync_faults).faults} == KINDS


def test_a_job_without_steps_goes_by_the_clock_and_a_tiny_one_is_refused():
    """What tells no steps is reclaimed by time; what has next to none can't be."""
    items = parse_schedule(plan(1, num_steps=None, num_seconds=100.0).reclaim).items
    assert [item.value for item in items] == pytest.approx([20, 40, 60, 80])
    with pytest.raises(SpecError, match="2 steps, too few"):
        plan(1, num_steps=2)
