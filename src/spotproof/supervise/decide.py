"""What to do with a supervised run now: a function of its state, and of nothing else. Pure.

The rules of when to be on spot are :class:`spotproof.plan.Rules`, the ones that ``spotproof plan`` simulates. Here they
are asked about one real job, and what they can't know is added: money, capacity that does not come, jobs that fail.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from spotproof.plan import PlannedJob, Rules
from spotproof.plan.rules import EPSILON_SECONDS
from spotproof.supervise.goal import Goal, Times

__all__ = ["Action", "End", "Ending", "Keep", "LiveJob", "RunState", "Stop", "StopReason", "Submit", "decide"]

StopReason = Literal["deadline", "pace", "capacity", "budget"]
Ending = Literal["completed", "failed", "by hand", "out of time", "out of wait", "service"] | StopReason
"""How a job of the run ended: by itself, or because it was stopped for a reason."""

_MAX_SERVICE_FAILURES: Final = 5
"""In a row; then something is wrong that another start does not mend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveJob:
    """The one job that is not over."""

    number: int
    is_spot: bool
    machine: int
    """Which of the goal's."""
    stage: Literal["waiting", "running", "stopping"]
    """Without machines, with them (they start, train, or upload), or on its way out."""
    waiting_seconds: float = 0.0
    """For machines, this time."""
    is_starved: bool = False
    """Whether the service has said that it found no capacity."""
    is_training: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """Where a run stands. Seconds count from its creation."""

    now_seconds: float
    left_seconds: float
    """Work: beyond the last step of a job that has machines, else beyond the newest checkpoint in S3."""
    job: PlannedJob | None
    """What is reckoned with; None without a deadline."""
    live: LiveJob | None = None
    endings: tuple[Ending, ...] = ()
    """Of the jobs before, in their order."""
    on_spot: tuple[bool, ...] = ()
    """Of the same jobs, whether they were for spot."""
    machines: tuple[int, ...] = ()
    """Of the same jobs, on which of the goal's machines."""
    spent_usd: float | None = None
    """By all jobs; None without prices."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Let things go on."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the live job; it saves and leaves."""

    reason: StopReason


@dataclass(frozen=True, slots=True)
class Submit:
    """Create the next job; it goes on from the checkpoint in S3."""

    is_spot: bool
    machine: int
    why: str


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    outcome: Literal["completed", "failed", "stopped", "out of time", "out of money"]


Action = Keep | Stop | Submit | End


def decide(goal: Goal, state: RunState, times: Times) -> Action:
    """Return what to do now.

    Args:
        goal: What was asked for.
        state: Where the run stands.
        times: How long the platform's own moves take.
    """
    live = state.live
    if live is None:
        return _between_jobs(goal, state, times)
    if live.stage == "stopping":
        return Keep()
    if _is_budget_used_up(goal, state, live, times):
        return Stop("budget")
    if live.stage == "waiting":
        return _waiting(goal, state, live, times)
    if not live.is_spot and live.is_training and _may_look_for_spot(goal, state):
        return Stop("pace")
    return Keep()


def _between_jobs(goal: Goal, state: RunState, times: Times) -> Action:
    last = state.endings[-1] if state.endings else None
    if last == "completed":
        return End("completed")
    if last == "by hand":
        return End("stopped")
    if last == "budget":
        return End("out of money")
    if last == "out of time":
        return End("out of time")
    if last == "failed" or state.endings[-_MAX_SERVICE_FAILURES:].count("service") == _MAX_SERVICE_FAILURES:
        return End("failed")
    is_spot, why = _wanted(goal, state, has_no_spot=False, times=times)
    machine = _next_machine(goal, state, is_spot=is_spot)
    if not _can_pay_start(goal, state, times, is_spot=is_spot, machine=machine):
        return End("out of money")
    return Submit(is_spot, machine, why)


def _waiting(goal: Goal, state: RunState, live: LiveJob, times: Times) -> Action:
    if live.is_spot:
        has_no_spot = live.is_starved or live.waiting_seconds > times.platform_seconds
        is_spot, why = _wanted(goal, state, has_no_spot=has_no_spot, times=times)
        if not is_spot:
            return Stop("deadline" if why == _NET else "pace")
    if len(goal.machines) > 1 and live.waiting_seconds > times.patience_seconds:
        return Stop("capacity")
    return Keep()


_NET: Final = "one more start on spot that came to nothing would break the deadline"
_BEHIND: Final = "there is no spot capacity, and the run is behind an even pace to its deadline"


def _wanted(goal: Goal, state: RunState, *, has_no_spot: bool, times: Times) -> tuple[bool, str]:
    """Return whether a run without machines should wait for spot, and why."""
    if state.job is None or goal.policy == "spot":
        return True, "spot is what was asked for"
    if goal.policy == "on-demand":
        return False, "on demand is what was asked for"
    at, is_final = Rules(state.job, goal.policy).on_demand_at(
        np.array([state.now_seconds]), np.array([state.left_seconds]), np.array([False])
    )
    is_due = bool(at[0] <= state.now_seconds + 2 * EPSILON_SECONDS)
    if is_due and is_final[0]:
        if _can_pay_on_demand(goal, state, times):
            return False, _NET
        return True, "the money does not last on demand: the deadline can't be kept, the budget can"
    # The net is certain; to be behind is a reason only where there is no spot, and that has to be seen first.
    if is_due and (has_no_spot or _left_for_want_of_spot(state)):
        return False, _BEHIND
    return True, "there is time to wait for spot"


def _left_for_want_of_spot(state: RunState) -> bool:
    """Whether the job before was given up on spot just now, because there was none."""
    return bool(state.endings) and state.endings[-1] == "pace" and state.on_spot[-1]


def _may_look_for_spot(goal: Goal, state: RunState) -> bool:
    """Whether a job that trains on demand should be left for spot.

    Nobody says whether there is any: one must ask for it. Each time that it came to nothing, the run must be twice as
    far ahead before it is tried again.

    A greedy run that went on demand stays there, if it knew its work. If it did not, and has time now for all that a
    vain look for spot costs and for its safety net a second time, then it would not have gone.
    """
    if state.job is None or goal.policy not in ("greedy", "uniform-progress"):
        return False
    rules, now, left = Rules(state.job, goal.policy), np.array([state.now_seconds]), np.array([state.left_seconds])
    patience = 2.0 ** _num_vain(state)
    finish = now + state.job.training_seconds(left)
    if not rules.may_leave(now, left, finish)[0]:
        return False
    if goal.policy == "greedy":
        is_much_left = finish[0] - now[0] > rules.leave_seconds + rules.net_seconds
        return bool(is_much_left and rules.slack(now + rules.leave_seconds, left)[0] >= patience * rules.net_seconds)
    return bool(rules.ahead_at(now, left, start_ups=2.0 * patience)[0] <= state.now_seconds + EPSILON_SECONDS)


def _num_vain(state: RunState) -> int:
    """Return how often spot was looked for in vain: jobs on spot that were given up for want of it."""
    return sum(
        1
        for ending, is_spot in zip(state.endings, state.on_spot, strict=True)
        if is_spot and ending in ("deadline", "pace", "capacity")
    )


def _next_machine(goal: Goal, state: RunState, *, is_spot: bool) -> int:
    """Return which machine to ask for: the preferred one, but after one that was not to be had, the next."""
    tried: list[int] = []
    for ending, was_spot, machine in zip(
        reversed(state.endings), reversed(state.on_spot), reversed(state.machines), strict=True
    ):
        if ending != "capacity" or was_spot != is_spot:
            break
        tried.append(machine)
    if not tried:
        return 0
    return (tried[0] + 1) % len(goal.machines)


# -- money --------------------------------------------------------------------------------------------------------


def _usd_per_second(goal: Goal, *, is_spot: bool, machine: int) -> float:
    offer = goal.machines[machine]
    usd = offer.spot_usd_per_hour if is_spot else offer.on_demand_usd_per_hour
    return (usd or 0.0) * goal.num_instances / 3600


def _rounding_usd(goal: Goal, machine: int) -> float:
    """What a bill in whole seconds at the on-demand price may be above the time that was used."""
    return _usd_per_second(goal, is_spot=False, machine=machine)


def _is_budget_used_up(goal: Goal, state: RunState, live: LiveJob, times: Times) -> bool:
    """Whether the job must be stopped now, so that it is over, saved and uploaded before the money is."""
    if goal.max_cost_usd is None or state.spent_usd is None:
        return False
    price = _usd_per_second(goal, is_spot=live.is_spot, machine=live.machine)
    # Who waits may get machines at any moment, and a start alone is not worth its price.
    start = times.platform_seconds + times.warm_up_seconds if live.stage == "waiting" else 0.0
    needed = price * (start + times.stop_seconds + 2 * times.poll_seconds)
    return state.spent_usd + needed + _rounding_usd(goal, live.machine) >= goal.max_cost_usd


def _can_pay_start(goal: Goal, state: RunState, times: Times, *, is_spot: bool, machine: int) -> bool:
    if goal.max_cost_usd is None or state.spent_usd is None:
        return True
    price = _usd_per_second(goal, is_spot=is_spot, machine=machine)
    needed = times.platform_seconds + times.warm_up_seconds + times.stop_seconds + 2 * times.poll_seconds
    return state.spent_usd + price * needed + _rounding_usd(goal, machine) < goal.max_cost_usd


def _can_pay_on_demand(goal: Goal, state: RunState, times: Times) -> bool:
    """Whether the money lasts to the end on demand. If not, going there would keep neither deadline nor budget."""
    if goal.max_cost_usd is None or state.spent_usd is None or state.job is None:
        return True
    price = _usd_per_second(goal, is_spot=False, machine=_next_machine(goal, state, is_spot=False))
    seconds = state.job.start_seconds + float(state.job.training_seconds(np.array([state.left_seconds]))[0])
    return state.spent_usd + price * (seconds + times.stop_seconds) <= goal.max_cost_usd
