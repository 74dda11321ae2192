"""Thousands of jobs at once, each from event to event: no ticks, no clock, no randomness. Pure.

Each round takes every job that is not done from one moment without a machine to the next: it waits, takes a spot
machine until that is reclaimed or the job is done, or goes on demand. Moves happen when something changes or a rule
comes to hold, so that times are exact, whatever the trace's ticks are.

The rules (Wu et al., "Can't Be Late", NSDI '24), where *slack* is the time left beyond what the rest takes on demand:

- ``spot``: any spot capacity, as long as it takes. SageMaker's managed spot does so.
- ``on-demand``: no spot.
- ``greedy``: spot, until a further start that comes to nothing would break the deadline; then on demand to the end.
- ``uniform-progress``: as greedy; and whoever has no spot and is behind an even pace goes on demand, and leaves it for
  spot once two start-ups ahead of that pace.

When exactly, :class:`~spotproof.plan.rules.Rules` says. On-demand capacity is taken to be there at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from spotproof.plan.job import PlannedJob, Pool
from spotproof.plan.rules import EPSILON_SECONDS, Flags, Policy, Rules
from spotproof.plan.spells import Floats

__all__ = ["LONGEST_SECONDS", "Outcomes", "play"]

Indices = npt.NDArray[np.intp]

LONGEST_SECONDS: Final = 28 * 24 * 3600.0
"""A job that is not done by then is given up; so is one on spot alone that kept nothing in two laps of the trace.
Source: SageMaker's limit of MaxWaitTimeInSeconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """What became of each job; all arrays are (jobs,)."""

    finish_seconds: Floats
    """After its creation; inf if it was given up."""
    cost_usd: Floats
    """Each machine's time, start-ups included, at its price."""
    spot_seconds: Floats
    """On spot machines, start-ups included."""
    on_demand_seconds: Floats
    spot_work_seconds: Floats
    """Of the work that counted, what was done there."""
    on_demand_work_seconds: Floats
    lost_seconds: Floats
    """Work done again, in seconds of undisturbed training."""
    waiting_seconds: Floats
    reclaims: Floats


def play(job: PlannedJob, pools: Sequence[Pool], policy: Policy, starts: Floats) -> Outcomes:
    """Return what becomes of *job* if it is created at each of *starts*.

    Args:
        job: The work and its costs.
        pools: Where spot capacity may come from. One that is cheaper on average for the same work goes first; a job
            that has a machine stays there until it is reclaimed, or, if it is slower than on demand, until that uses
            up the slack.
        policy: The rule.
        starts: (jobs,) seconds after the start of the traces.
    """
    ordered = sorted(pools, key=lambda pool: pool.usd_per_hour / pool.speed)
    jobs = _Jobs(job, ordered, policy, np.asarray(starts, dtype=np.float64))
    active = np.arange(len(starts))
    while len(active):
        active = jobs.advance(active)
    return jobs.outcomes


class _Jobs:
    """All jobs and where they stand; between two rounds none has a machine."""

    def __init__(self, job: PlannedJob, pools: Sequence[Pool], policy: Policy, starts: Floats) -> None:
        self._job, self._pools, self._policy, self._starts = job, pools, policy, starts
        self._now = np.zeros_like(starts)
        self._left = np.full_like(starts, job.work_seconds)
        self._speeds = np.array([pool.speed for pool in pools])
        self._rules = Rules(job, policy)
        laps = {pool.spells.lap_seconds for pool in pools}
        self._lap_seconds = laps.pop() if policy == "spot" and len(laps) == 1 else math.inf
        self._kept_at = np.zeros_like(starts)
        self._has_no_slack = np.zeros(len(starts), dtype=bool)  # used up on slow machines
        self.outcomes = Outcomes(**{field.name: np.zeros_like(starts) for field in fields(Outcomes)})

    def advance(self, active: Indices) -> Indices:
        """Take *active* jobs from one moment without a machine to the next; return those that are not done."""
        now = self._now[active]
        up, down, pool = self._next_spot(now, self._starts[active])
        on_demand_at, is_final = self._rules.on_demand_at(now, self._left[active], self._has_no_slack[active])
        is_spot = on_demand_at > up
        begin = np.minimum(np.where(is_spot, up, on_demand_at), LONGEST_SECONDS)
        self.outcomes.waiting_seconds[active] += begin - now
        self._now[active] = begin
        is_over = begin >= LONGEST_SECONDS
        self.outcomes.finish_seconds[active[is_over]] = math.inf
        goes_spot, goes_on_demand = is_spot & ~is_over, ~is_spot & ~is_over
        if goes_spot.any():
            self._run_on_spot(active[goes_spot], down[goes_spot], pool[goes_spot])
        if goes_on_demand.any():
            self._run_on_demand(active[goes_on_demand], is_final[goes_on_demand])
        following: Indices = active[self.outcomes.finish_seconds[active] == 0]
        return following

    def _next_spot(self, now: Floats, starts: Floats) -> tuple[Floats, Floats, Indices]:
        """Return when and where spot capacity is next there, and when that goes; the cheapest of several at once."""
        up = np.full_like(now, math.inf)
        down, where = up.copy(), np.zeros(len(now), dtype=np.intp)
        place = now + starts + EPSILON_SECONDS  # so that a capacity which goes at this very moment, rounded, is gone
        for index, pool in enumerate(self._pools):
            next_up, next_down = pool.spells.next_up(place)
            next_up = np.where(next_up <= place, now, next_up - starts)
            is_sooner = next_up < up
            up = np.where(is_sooner, next_up, up)
            down = np.where(is_sooner, next_down - starts, down)
            where[is_sooner] = index
        return up, down, where

    def _run_on_spot(self, jobs: Indices, down: Floats, pool: Indices) -> None:
        job, outcomes, speed = self._job, self.outcomes, self._speeds[pool]
        begin, left = self._now[jobs], self._left[jobs]
        end = np.minimum(down, LONGEST_SECONDS)
        finish = begin + job.start_seconds + job.training_seconds(left, speed)
        is_done = finish <= end
        end = np.where(is_done, finish, end)
        kept, lost = job.kept_and_lost(end - begin - job.start_seconds, speed)
        leave = self._leave_slow_at(begin, left, speed)
        is_leaving = leave + self._rules.leave_seconds < end
        kept = np.where(is_leaving, (leave - begin - job.start_seconds) * job.work_rate * speed, kept)
        end = np.where(is_leaving, leave + self._rules.leave_seconds, end)
        is_done &= ~is_leaving
        kept, lost = np.where(is_done, left, kept), np.where(is_done | is_leaving, 0.0, lost)
        outcomes.spot_seconds[jobs] += end - begin
        outcomes.cost_usd[jobs] += self._spot_cost(pool, begin + self._starts[jobs], end + self._starts[jobs])
        outcomes.spot_work_seconds[jobs] += kept
        outcomes.lost_seconds[jobs] += lost
        is_reclaimed = ~is_done & (end < LONGEST_SECONDS)
        outcomes.reclaims[jobs] += is_reclaimed & ~is_leaving
        self._has_no_slack[jobs] = is_leaving
        self._now[jobs] = end
        self._left[jobs] = left - kept
        self._kept_at[jobs] = np.where(kept > 0, end, self._kept_at[jobs])
        is_over = ~is_reclaimed | (end - self._kept_at[jobs] > 2 * self._lap_seconds)
        outcomes.finish_seconds[jobs] = np.where(is_done, end, np.where(is_over, math.inf, 0.0))

    def _spot_cost(self, where: Indices, begin: Floats, end: Floats) -> Floats:
        cost = np.zeros_like(begin)
        for index, pool in enumerate(self._pools):
            is_there = where == index
            cost[is_there] = pool.cost_usd(begin[is_there], end[is_there])
        return cost

    def _leave_slow_at(self, begin: Floats, left: Floats, speed: Floats) -> Floats:
        """Return when machines slower than on-demand ones have used up the slack, so that the deadline needs those."""
        never = np.full_like(begin, math.inf)
        if self._policy == "spot" or (self._speeds >= 1).all():
            return never
        slack = np.maximum(self._rules.slack(begin, left) - self._job.save_seconds, 0.0)
        stay = np.divide(slack, 1 - speed, out=never, where=speed < 1)
        return begin + self._job.start_seconds + stay

    def _run_on_demand(self, jobs: Indices, is_final: Flags) -> None:
        job, outcomes = self._job, self.outcomes
        begin, left = self._now[jobs], self._left[jobs]
        trains_at = begin + job.start_seconds
        finish = trains_at + job.training_seconds(left)
        leave = self._leave_at(jobs, trains_at, left, finish)
        work = np.where(leave < finish, (leave - trains_at) * job.work_rate, left)
        is_leaving = ~is_final & self._rules.may_leave(leave, left - work, finish)
        work = np.where(is_leaving, work, left)
        end = np.where(is_leaving, leave + self._rules.leave_seconds, finish)
        is_done = end >= finish
        outcomes.on_demand_seconds[jobs] += end - begin
        outcomes.cost_usd[jobs] += (end - begin) * (job.usd_per_hour / 3600)
        outcomes.on_demand_work_seconds[jobs] += work
        self._now[jobs] = end
        self._left[jobs] = left - work
        outcomes.finish_seconds[jobs] = np.where(is_done, end, 0.0)

    def _leave_at(self, jobs: Indices, trains_at: Floats, left: Floats, finish: Floats) -> Floats:
        """Return when there is spot capacity and the job may look for it; else *finish*."""
        ahead_at = np.minimum(self._rules.ahead_at(trains_at, left), finish)
        up, _, _ = self._next_spot(ahead_at, self._starts[jobs])
        return np.where(ahead_at < finish, np.minimum(up, finish), finish)
