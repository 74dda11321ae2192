"""Small traces and jobs for the plan's tests, and the same policies in plain Python, one job at a time."""

import math

import numpy as np

from spotproof.plan import PlannedJob, Pool, spells_of
from spotproof.schedule import Trace

HOUR = 3600.0


def pool(counts, gap_seconds=600.0, usd_per_hour=1.0, num_instances=1, speed=1.0, name="pool", course=None):
    """A pool that follows *counts*, one each *gap_seconds*."""
    spells = spells_of(Trace.from_ticks(gap_seconds, counts), num_instances)
    return Pool(name=name, spells=spells, usd_per_hour=usd_per_hour, speed=speed, course=course)


def random_counts(seed, num_ticks=300, up=8, down=4):
    """Availability with geometric up- and down-times of those means, in ticks."""
    rng = np.random.default_rng(seed)
    counts, is_up = [], True
    while len(counts) < num_ticks:
        counts += [int(is_up)] * int(rng.geometric(1 / (up if is_up else down)))
        is_up = not is_up
    return counts[:num_ticks]


def play_slowly(job: PlannedJob, counts, gap_seconds, usd_per_hour, policy, start, step=1.0):
    """One job, second by second: what `play` must agree with. Returns finish, cost and reclaims."""

    def is_there(at):
        return counts[int((start + at) // gap_seconds) % len(counts)] > 0

    def rest(left):
        if not job.save_seconds:
            return left
        pieces = math.ceil(left / (job.interval_seconds - job.save_seconds) - 1e-9)
        return left + job.save_seconds * max(0, pieces - 1)

    net = 2 * job.start_seconds + job.risk_seconds
    now, left, cost, reclaims = 0.0, job.work_seconds, 0.0, 0
    where, began, is_final = None, 0.0, False
    while now < 28 * 24 * HOUR:
        if where == "spot" and not is_there(now):
            trained = max(0.0, now - began - job.start_seconds)
            saves = math.floor(max(0.0, trained - job.durable_seconds) / job.interval_seconds + 1e-9)
            left -= saves * (job.interval_seconds - job.save_seconds)
            reclaims += 1
            where = None
        if where is None and policy != "spot":
            slack = job.deadline_seconds - now - rest(left) - net
            done = job.work_seconds - left
            is_behind = done < now * job.work_seconds / job.deadline_seconds - 1e-9
            if policy == "on-demand" or slack < 0:
                where, began, is_final = "paid", now, True
            elif policy == "uniform-progress" and is_behind and not is_there(now):
                where, began, is_final = "paid", now, False
        if where is None and is_there(now):
            where, began = "spot", now
        if where is not None:
            price = usd_per_hour if where == "spot" else job.usd_per_hour
            finish = began + job.start_seconds + rest(left)
            if finish <= now + step:
                return finish, cost + (finish - now) * price / HOUR, reclaims
            cost += step * price / HOUR
            if where == "paid" and not is_final and now >= began + job.start_seconds:
                done = job.work_seconds - left + (now - began - job.start_seconds) * job.work_rate
                pace = job.work_seconds / job.deadline_seconds
                leave = job.save_seconds + job.durable_seconds
                work = (now - began - job.start_seconds) * job.work_rate
                slack = job.deadline_seconds - now - leave - rest(left - work) - net
                if is_there(now) and done >= (now + 2 * job.start_seconds) * pace and slack >= 0:
                    left -= work
                    where = None
                    cost += (leave - step) * price / HOUR
                    now += leave
                    continue
        now += step
    return math.inf, cost, reclaims
