"""What no policy can beat: a lower bound of the cost for whoever knows the whole trace beforehand. Pure.

It loses no work at a reclaim, saves for nothing, moves between pools for nothing, and pays only start-ups, with which
machines begin (where pools differ in speed, that of the slowest). The cheapest such schedule that does the work in time
is bounded by its Lagrangian: work is paid λ a second, so that each stretch between two changes of the trace is used
whole or not at all, and the best choice is a walk through it with three states (idle, spot, on demand). The bound is
the best over λ, found where the cheapest schedules with too little and with enough work meet. Weak duality makes it a
true bound for any λ; what it may be too low by is less than what one start-up costs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from spotproof.plan.job import PlannedJob, Pool
from spotproof.plan.spells import Floats

__all__ = ["Bound", "omniscient_bound"]

_BATCH: Final = 1024
_ROUNDS: Final = 60
_EPSILON: Final = 1e-6
_NEVER: Final = -1e30

_Path = tuple[Floats, Floats, Floats]
"""Up to some moment: what was earned, the work, and the on-demand work of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """Of each job; all arrays are (jobs,). nan where the deadline can't be kept at all."""

    cost_usd: Floats
    on_demand_work_seconds: Floats
    spot_work_seconds: Floats


def omniscient_bound(job: PlannedJob, pools: Sequence[Pool], starts: Floats) -> Bound:
    """Return the least that *job* can cost if it is created at each of *starts* and done by its deadline.

    Args:
        job: Its work, start-up, deadline and on-demand price count.
        pools: Where spot capacity may come from.
        starts: (jobs,) seconds after the start of the traces.
    """
    parts = [_bound(job, pools, starts[first : first + _BATCH]) for first in range(0, len(starts), _BATCH)]
    costs, on_demand, spot = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Bound(cost_usd=costs, on_demand_work_seconds=on_demand, spot_work_seconds=spot)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stretch:
    """A time between two changes, of each job; all arrays are (jobs,)."""

    seconds: Floats
    offers: tuple[tuple[float, Floats], ...]
    """Of each speed, the cheapest USD per second that is there; inf for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Best:
    """The best schedules at some λ, all (jobs,)."""

    cost: Floats
    work: Floats
    on_demand_work: Floats


def _bound(job: PlannedJob, pools: Sequence[Pool], starts: Floats) -> tuple[Floats, Floats, Floats]:
    stretches = _stretches(pools, starts, job.deadline_seconds)
    slowest = min((pool.speed for pool in pools), default=1.0)
    fastest = max([1.0, *(pool.speed for pool in pools)])
    zeros = np.zeros_like(starts)
    low = _Best(cost=zeros, work=zeros, on_demand_work=zeros)
    tops = [pool.usd_per_hour * (pool.course.most if pool.course else 1.0) for pool in pools]
    dearest = max([job.usd_per_hour, *tops, 1e-9]) / 3600
    high = _walk(job, stretches, slowest, np.full_like(starts, dearest * fastest * 1e6))
    is_possible = high.work >= job.work_seconds * (1 - 1e-9)
    for _ in range(_ROUNDS):
        gap = np.maximum(high.work - low.work, 1e-9)
        price = (high.cost - low.cost) / gap
        best = _walk(job, stretches, slowest, price)
        # Below the line through both: there is a better schedule at this price. On it: the two are the best there.
        gain = (low.cost - price * low.work) - (best.cost - price * best.work)
        is_better = gain > 1e-9 * np.maximum(1e-9, np.abs(high.cost))
        if not (is_better & is_possible).any():
            break
        is_enough = best.work >= job.work_seconds
        high, low = _either(is_better & is_enough, best, high), _either(is_better & ~is_enough, best, low)
    share = np.clip((job.work_seconds - low.work) / np.maximum(high.work - low.work, 1e-9), 0, 1)
    mixed = [
        np.where(is_possible, (1 - share) * one + share * other, math.nan)
        for one, other in ((low.cost, high.cost), (low.on_demand_work, high.on_demand_work))
    ]
    return mixed[0], mixed[1], job.work_seconds - mixed[1]


def _either(is_first: "np.ndarray[tuple[int], np.dtype[np.bool_]]", first: _Best, second: _Best) -> _Best:
    return _Best(
        cost=np.where(is_first, first.cost, second.cost),
        work=np.where(is_first, first.work, second.work),
        on_demand_work=np.where(is_first, first.on_demand_work, second.on_demand_work),
    )


def _stretches(pools: Sequence[Pool], starts: Floats, deadline: float) -> list[_Stretch]:
    """Cut each job's time at all changes of all pools and their prices."""
    now = np.zeros_like(starts)
    rows: list[_Stretch] = []
    speeds = sorted({pool.speed for pool in pools})
    while (now < deadline).any():
        end = np.full_like(starts, deadline)
        offers = {speed: np.full_like(starts, math.inf) for speed in speeds}
        for pool in pools:
            up, down = pool.spells.next_up(now + starts + _EPSILON)
            is_up = up <= now + starts + _EPSILON
            end = np.minimum(end, np.where(is_up, down, up) - starts)
            price = np.full_like(starts, pool.usd_per_hour / 3600)
            if pool.course is not None:
                price *= pool.course.at(now + starts + _EPSILON)
                end = np.minimum(end, pool.course.next_change(now + starts + _EPSILON) - starts)
            cheapest = offers[pool.speed]
            cheapest[is_up] = np.minimum(cheapest[is_up], price[is_up])
        end = np.minimum(np.maximum(end, now + _EPSILON), deadline)
        rows.append(_Stretch(seconds=end - now, offers=tuple(offers.items())))
        now = end
    return rows


def _walk(job: PlannedJob, stretches: Sequence[_Stretch], slowest: float, price: Floats) -> _Best:
    """Return the schedules that earn most where a second's work is paid *price* (jobs,)."""
    on_demand = job.usd_per_hour / 3600
    zeros = np.zeros_like(price)
    idle: _Path = (zeros, zeros, zeros)
    spot: _Path = (np.full_like(price, _NEVER), zeros, zeros)
    paid = spot
    for stretch in stretches:
        seconds = stretch.seconds
        gain, speed = np.full_like(price, _NEVER), np.ones_like(price)
        for each, usd in stretch.offers:
            is_best = price * each - usd > gain
            gain, speed = np.where(is_best, price * each - usd, gain), np.where(is_best, each, speed)
        is_up = gain > _NEVER
        on_spot = _better(spot, _started(_better(idle, paid), price, job.start_seconds * slowest, 0.0))
        on_paid = _better(paid, _started(_better(idle, spot), price, job.start_seconds, job.start_seconds))
        earned = np.where(is_up, on_spot[0] + gain * seconds, _NEVER)
        idle = _better(idle, _better(spot, paid))
        spot = (earned, on_spot[1] + speed * seconds, on_spot[2])
        paid = (on_paid[0] + (price - on_demand) * seconds, on_paid[1] + seconds, on_paid[2] + seconds)
    value, work, on_demand_work = _better(idle, _better(spot, paid))
    return _Best(cost=price * work - value, work=work, on_demand_work=on_demand_work)


def _started(path: _Path, price: Floats, work: "Floats | float", on_demand_work: float) -> _Path:
    """Return *path* with the work of a start-up taken off that is about to be counted."""
    return path[0] - price * work, path[1] - work, path[2] - on_demand_work


def _better(one: _Path, other: _Path) -> _Path:
    is_first = one[0] >= other[0]
    return (
        np.where(is_first, one[0], other[0]),
        np.where(is_first, one[1], other[1]),
        np.where(is_first, one[2], other[2]),
    )
