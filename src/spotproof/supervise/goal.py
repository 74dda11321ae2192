"""What a supervised run must keep to: a deadline, a budget, and the machines it may use. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from spotproof.contract import STOP_GRACE_SECONDS
from spotproof.errors import SpecError
from spotproof.plan import ASSUMED, POLICIES, Policy

__all__ = ["AWS_TIMES", "LOCAL_TIMES", "Goal", "Machine", "Times", "check_goal", "goal_from_json", "goal_to_json"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """An instance type that the run may use, and its prices; None where they are not known."""

    instance_type: str
    spot_usd_per_hour: float | None = None
    """Of one instance."""
    on_demand_usd_per_hour: float | None = None
    """Of one instance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What was asked for."""

    machines: tuple[Machine, ...]
    """In order of preference."""
    num_instances: int = 1
    deadline_at: datetime | None = None
    max_cost_usd: float | None = None
    policy: Policy = "greedy"
    """Counts with a deadline; without one the run stays on spot."""
    work_seconds: float = 86400.0
    """What undisturbed training may take at most: reckoned with until its pace is measured."""

    @property
    def needs_supervision(self) -> bool:
        """Whether one job alone can't keep it."""
        return self.deadline_at is not None or self.max_cost_usd is not None or len(self.machines) > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """How long the platform's own moves take, where they can't be measured; in seconds."""

    poll_seconds: float
    """Between two looks."""
    platform_seconds: float
    """From the request to Downloading, with capacity there."""
    warm_up_seconds: float
    """From there to the first step, before any was seen."""
    mirror_seconds: float
    """From a commit until it is in S3."""
    interval_seconds: float
    """Between two saves, before any were seen."""
    patience_seconds: float
    """Without capacity, until another instance type is tried."""
    stop_seconds: float
    """From the decision to stop a job until it costs nothing more: its grace, and its uploads."""

    @property
    def switch_seconds(self) -> float:
        """Return how long it takes to see that something happened, to end a job that waits, and to submit another."""
        return 3 * self.poll_seconds


AWS_TIMES: Final = Times(
    poll_seconds=10.0,
    platform_seconds=ASSUMED["platform_seconds"],
    warm_up_seconds=ASSUMED["warm_up_seconds"],
    mirror_seconds=ASSUMED["mirror_seconds"],
    interval_seconds=900.0,
    patience_seconds=900.0,
    stop_seconds=STOP_GRACE_SECONDS + 2 * ASSUMED["mirror_seconds"],
)
"""AWS publishes none of them but the grace: assumed, as ``spotproof plan`` does."""
LOCAL_TIMES: Final = Times(
    poll_seconds=0.5,
    platform_seconds=3.0,
    warm_up_seconds=5.0,
    mirror_seconds=2.0,
    interval_seconds=5.0,
    patience_seconds=10.0,
    stop_seconds=STOP_GRACE_SECONDS + 2.0,
)
"""Of the local SageMaker, whose machines are processes."""


def check_goal(goal: Goal, *, now: datetime, times: Times) -> None:
    """Return if *goal* can be kept, as far as that is known before anything runs.

    Raises:
        SpecError: It can't, or it lacks what deciding needs.
    """
    if not goal.machines:
        raise SpecError("No instance type is named.", do="Give one or more, in order of preference.")
    kinds = [machine.instance_type for machine in goal.machines]
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
    if twice is not None:
        raise SpecError(f"{twice} is named twice.", do="Name each instance type once, in order of preference.")
    if goal.policy not in POLICIES:
        raise SpecError(f"{goal.policy!r} is no policy.", do=f"Choose from {', '.join(POLICIES)}.")
    if goal.max_cost_usd is not None:
        _check_budget(goal, goal.max_cost_usd)
    if goal.deadline_at is not None:
        _check_deadline(goal, goal.deadline_at, now, times)


def _check_budget(goal: Goal, max_cost_usd: float) -> None:
    if not 0 < max_cost_usd < 1e9:
        raise SpecError(f"max_cost_usd={max_cost_usd:g} is no budget.", do="Give USD above 0.")
    for machine in goal.machines:
        unknown = []
        if goal.policy != "on-demand" and machine.spot_usd_per_hour is None:
            unknown.append("spot")
        if goal.deadline_at is not None and machine.on_demand_usd_per_hour is None:
            unknown.append("on-demand")
        if unknown:
            raise SpecError(
                f"The {' and the '.join(unknown)} price of {machine.instance_type} is not known.",
                why="A budget can't be kept without it, and prices are never made up.",
                do="Give --prices FILE (see docs/plan.md), or no budget.",
            )


def _check_deadline(goal: Goal, deadline_at: datetime, now: datetime, times: Times) -> None:
    seconds = (deadline_at - now).total_seconds()
    if seconds <= 0:
        raise SpecError(f"The deadline {deadline_at.isoformat()} is over.", do="Give one to come.")
    needed = goal.work_seconds + times.platform_seconds + times.warm_up_seconds + times.switch_seconds
    if seconds < needed:
        raise SpecError(
            f"The deadline is {seconds / 3600:.4g} h away, and the work may take {needed / 3600:.4g} h.",
            why="Until the pace is measured, training is taken to need all of max_run, and a start-up.",
            do="Say what it needs at most (--work 2h, or a smaller max_run), or give more time.",
        )


def goal_to_json(goal: Goal) -> dict[str, Any]:
    """Return *goal* as plain JSON values."""
    return {
        "machines": [
            {
                "instance_type": machine.instance_type,
                "spot_usd_per_hour": machine.spot_usd_per_hour,
                "on_demand_usd_per_hour": machine.on_demand_usd_per_hour,
            }
            for machine in goal.machines
        ],
        "num_instances": goal.num_instances,
        "deadline_at": goal.deadline_at.isoformat() if goal.deadline_at else None,
        "max_cost_usd": goal.max_cost_usd,
        "policy": goal.policy,
        "work_seconds": goal.work_seconds,
    }


def goal_from_json(document: dict[str, Any]) -> Goal:
    """Return the goal that :func:`goal_to_json` gave.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    deadline = document["deadline_at"]
    return Goal(
        machines=tuple(Machine(**machine) for machine in document["machines"]),
        num_instances=int(document["num_instances"]),
        deadline_at=datetime.fromisoformat(deadline) if deadline is not None else None,
        max_cost_usd=document["max_cost_usd"],
        policy=document["policy"],
        work_seconds=float(document["work_seconds"]),
    )
