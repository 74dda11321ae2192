"""What a supervised run does, as a person or a program reads it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spotproof.cli.watch import WatchScreen
    from spotproof.supervise import RunRecord

__all__ = ["RunTeller", "goal_words"]


def goal_words(record: "RunRecord") -> str:
    """Return what the run is kept to, in one line."""
    goal = record.goal
    parts: list[str] = []
    if goal.deadline_at is not None:
        parts.append(f"to be done by {goal.deadline_at.astimezone():%Y-%m-%d %H:%M:%S %Z}, {goal.policy}")
    if goal.max_cost_usd is not None:
        parts.append(f"for at most {goal.max_cost_usd:.2f} USD")
    kinds = ", ".join(machine.instance_type for machine in goal.machines)
    return "; ".join([*parts, f"on {kinds}"])


class RunTeller:
    """Shows on *screen* what the supervisor of the run of *record* tells."""

    def __init__(self, record: "RunRecord", screen: "WatchScreen") -> None:
        self._record, self._screen = record, screen
        self._was_assumed: bool | None = None
        self.spent_usd: float | None = None

    def __call__(self, event: Any) -> None:
        from spotproof.supervise import Away, Looked

        if isinstance(event, Away):
            self._screen.note(f"{event.why} The run's job goes on; trying again.")
        elif isinstance(event, Looked):
            self._look(event)
        else:
            self._decision(event)

    def _look(self, event: Any) -> None:
        from spotproof.plan import Price
        from spotproof.report.figures import format_seconds
        from spotproof.supervise import build_view

        self.spent_usd = event.spent_usd
        measured = event.measured
        if self._record.goal.deadline_at is not None and measured.is_assumed != self._was_assumed:
            self._was_assumed = measured.is_assumed
            left = format_seconds(round(measured.left_seconds))
            if measured.is_assumed:
                self._screen.say(
                    f"The pace is not known yet: {left} of work are taken to be left, the most there may be."
                )
            else:
                self._screen.say(
                    f"Measured: {measured.seconds_per_step:.3g} s a step, so {left} of work are left; "
                    f"a start takes {format_seconds(round(measured.start_seconds))}."
                )
        kind = str((event.look.description.get("ResourceConfig") or {}).get("InstanceType", ""))
        machine = next((each for each in self._record.goal.machines if each.instance_type == kind), None)
        price = None
        if machine is not None and (machine.spot_usd_per_hour or machine.on_demand_usd_per_hour):
            price = Price(
                on_demand_usd_per_hour=machine.on_demand_usd_per_hour,
                spot_usd_per_hour=machine.spot_usd_per_hour,
                source="the run's record",
            )
        self._screen.show([build_view(event.look, price=price, asked_spot=None)])

    def _decision(self, event: Any) -> None:
        from spotproof.supervise import Stop, Submit

        action = event.action
        if isinstance(action, Submit):
            machine = self._record.goal.machines[action.machine].instance_type
            what = (
                f"{event.job_name}: submitted {'on spot' if action.is_spot else 'on demand'}, {machine}: {action.why}"
            )
            kind, reason = "submit", action.why
        elif isinstance(action, Stop):
            what, kind, reason = f"{event.job_name}: stopped: {_REASONS[action.reason]}", "stop", action.reason
        else:
            what, kind, reason = f"The run is over: {action.outcome}", "end", action.outcome
        self._screen.say(f"{event.at.astimezone():%H:%M:%S}  {what}")
        fields = {"decision": kind, "job_name": event.job_name, "reason": reason}
        if isinstance(action, Submit):
            fields["is_spot"] = action.is_spot
        self._screen.write_json({"at": event.at.isoformat(), "run": self._record.run, **fields})


_REASONS = {
    "deadline": "one more start on spot that came to nothing would break the deadline",
    "pace": "the pace to the deadline asks for other capacity",
    "capacity": "there is no capacity of this instance type",
    "budget": "the budget is used up, but for what it takes to save and leave",
}
