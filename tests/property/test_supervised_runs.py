"""Supervised runs under capacity that comes and goes as it likes: deadline, budget, and one live job, always."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "supervise"))
from run_world import TIMES, ZERO, World

from spotproof.supervise import Goal, Machine

HOUR = 3600.0
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""A run takes a tenth of a second."""
WORK = 2 * HOUR
SPELLS = st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=30)
"""Minutes that capacity is there, is away, is there, …, again and again."""


def capacity(spells, *, is_up_first):
    """Return whether capacity is there at a time."""
    changes, at = [], 0.0
    for minutes in spells:
        at += minutes * 60.0
        changes.append(at)

    def is_there(_machine, seconds):
        place = seconds % changes[-1]
        return (sum(change <= place for change in changes) % 2 == 0) == is_up_first

    return is_there


@settings(max_examples=25, deadline=None, phases=NO_SHRINKING)
@given(
    spells=SPELLS,
    is_up_first=st.booleans(),
    policy=st.sampled_from(("greedy", "uniform-progress")),
    slack_minutes=st.integers(min_value=25, max_value=240),
    guess=st.floats(min_value=1.0, max_value=1.1),
)
def test_a_deadline_that_can_be_met_is_met(spells, is_up_first, policy, slack_minutes, guess):
    """Whenever capacity goes, if on demand from the start would have been in time."""
    deadline = guess * WORK + slack_minutes * 60.0
    goal = Goal(
        machines=(Machine(instance_type="ml.a"),),
        deadline_at=ZERO + timedelta(seconds=deadline),
        policy=policy,
        work_seconds=guess * WORK,
    )
    world = World(capacity(spells, is_up_first=is_up_first), goal, total_steps=int(WORK / 2), seconds_per_step=2.0)

    assert world.supervise(until=deadline + 6 * HOUR).outcome == "completed"
    assert world.finished_at <= deadline


@settings(max_examples=25, deadline=None, phases=NO_SHRINKING)
@given(
    spells=SPELLS,
    is_up_first=st.booleans(),
    budget=st.floats(min_value=0.2, max_value=4.0),
    with_deadline=st.booleans(),
)
def test_a_budget_is_kept(spells, is_up_first, budget, with_deadline):
    """Whatever happens, the machines cost no more; and what was computed until then is safe."""
    goal = Goal(
        machines=(Machine(instance_type="ml.a", spot_usd_per_hour=1.0, on_demand_usd_per_hour=3.0),),
        deadline_at=ZERO + timedelta(hours=4) if with_deadline else None,
        max_cost_usd=budget,
        policy="greedy" if with_deadline else "spot",
        work_seconds=WORK,
    )
    world = World(capacity(spells, is_up_first=is_up_first), goal, total_steps=int(WORK / 2), seconds_per_step=2.0)
    try:
        end = world.supervise(until=10 * HOUR)
    except AssertionError:
        end = None  # capacity that never stays for long enough: it waits on spot, which costs nothing
    cost = world.spot_seconds / HOUR * 1.0 + world.on_demand_seconds / HOUR * 3.0
    assert cost <= budget
    if end is not None and end.outcome == "out of money" and world.jobs and world.jobs[-1].reason == "budget":
        assert world.durable == pytest.approx(int(world.step), abs=1) or world.jobs[-1].transitions[-3][0] != "Training"


def test_a_type_without_capacity_is_left_for_the_next():
    """In the order of preference, and round again."""
    goal = Goal(machines=tuple(Machine(instance_type=f"ml.{kind}") for kind in "abc"), policy="spot")
    world = World(lambda machine, at: machine == 1 and at > 5000, goal, total_steps=600, seconds_per_step=2.0)
    assert world.supervise(until=12 * HOUR).outcome == "completed"
    asked = [job.machine for job in world.jobs]
    assert asked == [index % 3 for index in range(len(asked))]
    assert asked[-1] == 1
    assert len(asked) >= 4
    patience = [later.created - earlier.created for earlier, later in zip(world.jobs, world.jobs[1:], strict=False)]
    assert all(
        TIMES.patience_seconds <= seconds <= TIMES.patience_seconds + 4 * TIMES.poll_seconds for seconds in patience
    )
