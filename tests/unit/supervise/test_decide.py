"""One decision at a time, by hand."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from spotproof import SpecError
from spotproof.plan import PlannedJob
from spotproof.supervise import (
    AWS_TIMES,
    LOCAL_TIMES,
    End,
    Goal,
    Keep,
    LiveJob,
    Machine,
    RunState,
    Stop,
    Submit,
    check_goal,
    decide,
)
from spotproof.supervise.goal import goal_from_json, goal_to_json

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
HOUR = 3600.0
MACHINES = (
    Machine(instance_type="ml.g5.xlarge", spot_usd_per_hour=0.6, on_demand_usd_per_hour=1.4),
    Machine(instance_type="ml.g4dn.xlarge", spot_usd_per_hour=0.3, on_demand_usd_per_hour=0.7),
)
GOAL = Goal(machines=MACHINES[:1], deadline_at=NOW + timedelta(hours=10), work_seconds=4 * HOUR)
JOB = PlannedJob(
    work_seconds=4 * HOUR,
    deadline_seconds=10 * HOUR,
    start_seconds=300.0,
    interval_seconds=600.0,
    durable_seconds=60.0,
)
NET = 2 * 300 + 600 + 60
START = RunState(now_seconds=0.0, left_seconds=4 * HOUR, job=JOB)
WAITING = LiveJob(number=1, is_spot=True, machine=0, stage="waiting", waiting_seconds=60.0)
RUNNING = LiveJob(number=1, is_spot=True, machine=0, stage="running", is_training=True)


def at(seconds, **changes):
    return replace(START, now_seconds=seconds, **changes)


def decided(state, goal=GOAL):
    return decide(goal, state, AWS_TIMES)


def test_spot_while_there_is_slack():
    """A second before the net it waits; a second behind it goes on demand, from a job that waits, or from none."""
    last = 10 * HOUR - 4 * HOUR - NET
    assert decided(at(last - 1)) == Submit(True, 0, "there is time to wait for spot")
    assert decided(at(last - 1, live=WAITING)) == Keep()
    assert decided(at(last + 1, live=WAITING)) == Stop("deadline")
    action = decided(at(last + 1, endings=("deadline",), on_spot=(True,), machines=(0,)))
    assert isinstance(action, Submit)
    assert not action.is_spot


def test_a_spot_job_with_machines_is_left_alone():
    """Its machines are as fast as others: to leave them would only cost."""
    assert decided(at(9 * HOUR, live=RUNNING)) == Keep()


def test_what_is_on_its_way_out_is_waited_for():
    """A second stop would be refused."""
    assert decided(at(9 * HOUR, live=replace(WAITING, stage="stopping"))) == Keep()


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        ("completed", "completed"),
        ("failed", "failed"),
        ("by hand", "stopped"),
        ("out of time", "out of time"),
        ("budget", "out of money"),
    ],
)
def test_ends(ending, outcome):
    """Each of them is the run's end, whatever time is left."""
    assert decided(at(60.0, endings=(ending,), on_spot=(True,), machines=(0,))) == End(outcome)


@pytest.mark.parametrize("ending", ["out of wait", "service", "capacity"])
def test_what_passes_is_tried_again(ending):
    """The service's own failures, and waits that it has cut off."""
    assert isinstance(decided(at(60.0, endings=(ending,), on_spot=(True,), machines=(0,))), Submit)


def test_a_service_that_fails_for_ever():
    """After five times in a row it is no accident."""
    many = {"on_spot": (True,) * 5, "machines": (0,) * 5}
    assert decided(at(60.0, endings=("service",) * 5, **many)) == End("failed")
    assert isinstance(
        decided(at(60.0, endings=("service", "service", "capacity", "service", "service"), **many)), Submit
    )


def test_behind_an_even_pace():
    """Uniform progress goes on demand once it has seen that there is no spot; greedy waits on; and it goes back."""
    uniform = replace(GOAL, policy="uniform-progress")
    behind = at(3 * HOUR, left_seconds=3.5 * HOUR)
    starved = replace(WAITING, is_starved=True)
    assert decided(replace(behind, live=WAITING), uniform) == Keep()
    assert decided(replace(behind, live=starved), uniform) == Stop("pace")
    assert decided(replace(behind, live=starved)) == Keep()
    given_up = replace(behind, endings=("pace",), on_spot=(True,), machines=(0,))
    assert decided(given_up, uniform) == Submit(
        False, 0, "there is no spot capacity, and the run is behind an even pace to its deadline"
    )
    on_demand = replace(RUNNING, number=2, is_spot=False)
    ahead = replace(given_up, live=on_demand, left_seconds=4 * HOUR * 0.7 - 600 * 0.4)
    # Once in vain: it must be four start-ups ahead, and is when it has done as much more as they take at that pace.
    assert decided(ahead, uniform) == Keep()
    assert decided(replace(ahead, left_seconds=4 * HOUR * 0.7 - 1300 * 0.4), uniform) == Stop("pace")


def test_greedy_goes_back_only_if_it_had_known_too_little():
    """A run that went on demand on the assumption that its work was long, and sees that it is short."""
    on_demand = at(6 * HOUR, live=replace(RUNNING, is_spot=False))
    assert decided(replace(on_demand, left_seconds=3.5 * HOUR)) == Keep()
    assert decided(replace(on_demand, left_seconds=1.0 * HOUR)) == Stop("pace")
    assert decided(replace(on_demand, left_seconds=600.0)) == Keep()  # not worth another start


def test_the_budget_is_kept():
    """With machines: stopped while there is money for its grace. Without: no start that is not worth its price."""
    goal = replace(GOAL, max_cost_usd=1.0)
    reserve = 0.6 / HOUR * (AWS_TIMES.stop_seconds + 2 * AWS_TIMES.poll_seconds) + 1.4 / HOUR
    assert decided(at(60.0, live=RUNNING, spent_usd=1.0 - reserve - 1e-6), goal) == Keep()
    assert decided(at(60.0, live=RUNNING, spent_usd=1.0 - reserve + 1e-6), goal) == Stop("budget")
    assert decided(at(60.0, live=WAITING, spent_usd=0.95), goal) == Stop("budget")
    assert decided(at(60.0, spent_usd=0.95), goal) == End("out of money")
    assert decided(at(60.0, spent_usd=0.1), goal) == Submit(True, 0, "there is time to wait for spot")


def test_a_deadline_that_the_budget_does_not_allow():
    """On demand the money would not last: spot is waited for, the deadline goes."""
    late = at(9 * HOUR, spent_usd=0.0)
    poor, rich = replace(GOAL, max_cost_usd=3.0), replace(GOAL, max_cost_usd=30.0)
    action = decided(late, poor)
    assert isinstance(action, Submit)
    assert action.is_spot
    assert "budget" in action.why
    assert decided(replace(late, live=WAITING), poor) == Keep()
    assert decided(replace(late, live=WAITING), rich) == Stop("deadline")


def test_the_next_type():
    """Without capacity, after a quarter of an hour; what was given up last is asked for last."""
    goal = replace(GOAL, machines=MACHINES)
    long_waiting = replace(WAITING, waiting_seconds=901.0)
    assert decided(at(1000.0, live=long_waiting), goal) == Stop("capacity")
    assert decided(at(1000.0, live=long_waiting)) == Keep()
    ended = {"on_spot": (True,), "machines": (0,)}
    assert decided(at(1000.0, endings=("capacity",), **ended), goal).machine == 1
    both = {"endings": ("capacity",) * 2, "on_spot": (True,) * 2, "machines": (0, 1)}
    assert decided(at(1000.0, **both), goal).machine == 0
    late = decided(at(9 * HOUR, endings=("capacity",), **ended), goal)
    assert (late.is_spot, late.machine) == (False, 0)


def test_goals_that_can_not_be_kept_are_refused():
    """Before anything starts, with what to do."""

    def refused(**changes):
        with pytest.raises(SpecError) as caught:
            check_goal(replace(GOAL, **changes), now=NOW, times=AWS_TIMES)
        assert caught.value.do
        return str(caught.value)

    check_goal(GOAL, now=NOW, times=AWS_TIMES)
    assert "is over" in refused(deadline_at=NOW)
    assert "the work may take" in refused(deadline_at=NOW + timedelta(hours=4))
    assert "never made up" in refused(max_cost_usd=5.0, machines=(Machine(instance_type="ml.a"),))
    assert "no budget" in refused(max_cost_usd=0.0)
    assert "named twice" in refused(machines=MACHINES[:1] * 2)
    assert "no policy" in refused(policy="hope")
    assert "No instance type" in refused(machines=())


def test_a_goal_outlives_its_process():
    """What is written down is what was asked for."""
    for goal in (GOAL, replace(GOAL, deadline_at=None, max_cost_usd=2.5, machines=MACHINES, policy="spot")):
        assert goal_from_json(goal_to_json(goal)) == goal


def test_local_times_are_shorter():
    """Machines that are processes are there at once; the grace of a stop is the same."""
    assert LOCAL_TIMES.platform_seconds < AWS_TIMES.platform_seconds
    assert LOCAL_TIMES.stop_seconds >= 120
