"""The supervisor's decisions, replayed over recorded spot capacity: no deadline is missed that could have been met."""

from datetime import timedelta

import numpy as np
import pytest
from run_world import DOWNLOAD, TIMES, WARM_UP, ZERO, World

from spotproof.plan import PlannedJob, Pool, parse_offers, play, spells_of
from spotproof.supervise import Goal, Machine

HOUR = 3600.0
WORK = 3 * HOUR
TRACES = {
    "busy": ("recorded:aws-p3", 16),
    "scarce": ("recorded:aws-p3", 24),
    "rare": ("recorded:aws-p3", 30),
    "cheap": ("recorded:aws-g4dn-us-east-1c", 8),
    "never": ("recorded:aws-g4dn-us-east-1c", 16),
}


def trace_of(name):
    text, num_instances = TRACES[name]
    (offer,) = parse_offers([text], instance_type="ml.p3.2xlarge", prices=None, spot_price=None)
    return offer.trace, num_instances


def replay(trace, num_instances, *, policy, share, start, work=WORK):
    """Return a run that began *start* seconds into the trace, and its deadline; *share* of the time is work."""
    deadline = work / share
    goal = Goal(
        machines=(Machine(instance_type="ml.p3.2xlarge"),),
        deadline_at=ZERO + timedelta(seconds=deadline),
        policy=policy,
        # What its user has to say: it may be slower than he thinks.
        work_seconds=1.1 * work,
    )
    world = World(
        lambda _, at: trace.available_at(start + at) >= num_instances,
        goal,
        total_steps=int(work / 2),
        seconds_per_step=2.0,
    )
    end = world.supervise(until=deadline + 12 * HOUR)
    assert end.outcome == "completed"
    return world, deadline


def check_replays(*, num_starts, shares, policies=("greedy", "uniform-progress")):
    """Replay all traces from *num_starts* moments each."""
    for name in TRACES:
        trace, num_instances = trace_of(name)
        for policy in policies:
            for share in shares:
                for index in range(num_starts):
                    start = index * trace.length_seconds / num_starts
                    world, deadline = replay(trace, num_instances, policy=policy, share=share, start=start)
                    late = world.finished_at - deadline
                    assert late <= 0, f"{name}, {policy}, {share}, from {start}: {late} s late"


def test_no_deadline_is_missed():
    """On demand each of these could be met; under both policies each is."""
    check_replays(num_starts=2, shares=(0.65,), policies=("greedy",))
    check_replays(num_starts=2, shares=(0.8,), policies=("uniform-progress",))


@pytest.mark.slow
def test_no_deadline_is_missed_anywhere():
    """The same at many more starts, from loose to so tight that there is hardly time for one vain start."""
    check_replays(num_starts=12, shares=(0.4, 0.55, 0.7, 0.8, 0.85))


def test_it_does_no_worse_than_was_planned():
    """Reckoned with the same start-ups, the plan is met or beaten: the run is done no later than `plan` simulates, and
    no longer on demand, but for two looks at each change. Its real start-ups are shorter than those that it fears."""
    start_up = TIMES.platform_seconds + DOWNLOAD + WARM_UP + TIMES.switch_seconds
    planned = PlannedJob(
        work_seconds=WORK,
        deadline_seconds=WORK / 0.5,
        start_seconds=start_up,
        interval_seconds=600.0,
        durable_seconds=TIMES.mirror_seconds + 1.0,
    )
    for name in ("scarce", "cheap"):
        trace, num_instances = trace_of(name)
        starts = np.arange(3) * trace.length_seconds / 3
        pool = Pool(name=name, spells=spells_of(trace, num_instances), usd_per_hour=1.0)
        expected = play(planned, [pool], "greedy", starts)
        for index, start in enumerate(starts):
            world, _ = replay(trace, num_instances, policy="greedy", share=0.5, start=start)
            reclaims = sum(entry[0] == "Interrupted" for job in world.jobs for entry in job.transitions)
            assert abs(reclaims - expected.reclaims[index]) <= 1
            looks = 2 * TIMES.poll_seconds * (1 + reclaims)
            assert world.finished_at <= expected.finish_seconds[index] + looks
            assert world.on_demand_seconds <= expected.on_demand_seconds[index] + looks


def test_spot_is_used_while_there_is_slack():
    """With capacity that stays, nothing goes on demand; with none at all, nothing is waited for beyond the net."""
    trace, num_instances = trace_of("never")
    world, deadline = replay(trace, num_instances, policy="greedy", share=0.5, start=0.0)
    assert world.spot_seconds == 0
    waited = world.jobs[1].created
    net = 2 * (TIMES.platform_seconds + TIMES.warm_up_seconds + TIMES.switch_seconds)
    assert waited <= deadline - WORK - net < deadline - WORK

    goal = world.goal
    always = World(lambda *_: True, goal, total_steps=int(WORK / 2), seconds_per_step=2.0)
    assert always.supervise(until=deadline).outcome == "completed"
    assert always.on_demand_seconds == 0
    assert len(always.jobs) == 1
