"""When a job takes spot, when it goes on demand, when it leaves that again: the rules of all policies. Pure.

The simulator asks them for thousands of jobs at once, and who supervises a real job asks them for that one: what was
planned is what is done. Moments are seconds after the job's creation; *left* is work, in seconds of undisturbed
training on demand; all arrays are (jobs,).

Source: Wu et al., "Can't Be Late", NSDI '24.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from spotproof.plan.job import PlannedJob
from spotproof.plan.spells import Floats

__all__ = ["EPSILON_SECONDS", "POLICIES", "Flags", "Policy", "Rules"]

Flags = npt.NDArray[np.bool_]
Policy = Literal["spot", "on-demand", "greedy", "uniform-progress"]
POLICIES: Final[tuple[Policy, ...]] = ("spot", "on-demand", "greedy", "uniform-progress")
EPSILON_SECONDS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Rules:
    """One policy, for one job.

    The paper's safety net is two start-ups. Here a reclaim also loses work, and a job that goes back to spot saves
    first: the net is deeper by as much.
    """

    job: PlannedJob
    policy: Policy

    @property
    def net_seconds(self) -> float:
        """Return what one more start on spot may cost before a job must be on demand: two start-ups and a loss."""
        return 2 * self.job.start_seconds + self.job.risk_seconds

    @property
    def leave_seconds(self) -> float:
        """Return how long a job that leaves its machine on purpose takes to save, until the save is durable."""
        return self.job.save_seconds + self.job.durable_seconds

    def slack(self, now: Floats, left: Floats) -> Floats:
        """Return how long a job may still wait before the safety net."""
        slack: Floats = self.job.deadline_seconds - now - self.job.training_seconds(left) - self.net_seconds
        return slack

    def on_demand_at(self, now: Floats, left: Floats, has_no_slack: Flags) -> tuple[Floats, Flags]:
        """Return from when on a job without a machine goes on demand, and whether it then stays there.

        Where that is *now*, it does so even if there is spot capacity.

        Args:
            now: When it is asked.
            left: Of the work, what is not safe.
            has_no_slack: Whether it was used up, on machines that are slower than on-demand ones.
        """
        is_final = np.ones(len(now), dtype=bool)
        if self.policy == "spot":
            return np.full_like(now, np.inf), is_final
        if self.policy == "on-demand":
            return now, is_final
        slack = self.slack(now, left)
        net_at = np.where((slack < -EPSILON_SECONDS) | has_no_slack, now, now + slack + 2 * EPSILON_SECONDS)
        if self.policy == "greedy":
            return net_at, is_final
        done = self.job.work_seconds - left
        behind_at = np.maximum(now, done * (self.job.deadline_seconds / self.job.work_seconds)) + EPSILON_SECONDS
        return np.minimum(net_at, behind_at), net_at <= behind_at

    def ahead_at(self, trains_at: Floats, left: Floats, *, start_ups: float = 2.0) -> Floats:
        """Return when a job that trains on demand is two start-ups ahead of an even pace, and may look for spot.

        inf for a policy that stays, and where the pace leaves no time to get ahead.

        Args:
            trains_at: From when on it trains.
            left: The work at that moment.
            start_ups: How many ahead it must be; more than the paper's two for who can't see whether spot is there.
        """
        job = self.job
        pace = job.work_seconds / job.deadline_seconds
        if self.policy != "uniform-progress" or job.work_rate <= pace:
            return np.full_like(trains_at, np.inf)
        behind = (trains_at + start_ups * job.start_seconds) * pace - (job.work_seconds - left)
        ahead: Floats = trains_at + np.maximum(behind, 0.0) / (job.work_rate - pace)
        return ahead

    def may_leave(self, leave: Floats, left: Floats, finish: Floats) -> Flags:
        """Return whether it pays, and is safe, to leave on-demand machines for spot.

        Who is done here before a start-up there would be over stays; so does who would have no slack, for he would
        have to go on demand again at once, for a further start-up.

        Args:
            leave: When it would.
            left: The work at that moment.
            finish: When it would be done where it is.
        """
        away = leave + self.leave_seconds
        is_worth_it = away + self.job.start_seconds + EPSILON_SECONDS < finish
        may: Flags = is_worth_it & (self.slack(away, left) >= 0)
        return may
