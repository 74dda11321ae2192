"""The plan for programs: plain JSON values, each figure under its name, with units in the names. Pure."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

from spotproof.plan.advise import Plan
from spotproof.plan.course import Course

__all__ = ["to_json"]


def to_json(plan: Plan) -> dict[str, Any]:
    """Return *plan* as JSON values; what never happens or is not known is null. Costs are null without prices."""
    question = plan.question
    document = {
        "work_seconds": question.work_seconds,
        "deadline_seconds": question.deadline_seconds,
        "num_instances": question.num_instances,
        "confidence": question.confidence,
        "num_jobs": question.num_jobs,
        "seed": question.seed,
        "on_demand_price": _plain(question.on_demand),
        "pools": _plain(plan.pools),
        "costs": _plain(question.costs),
        "has_prices": plan.has_prices,
        "undisturbed_seconds": plan.job.undisturbed_seconds,
        "break_even_percent": _plain(plan.break_even_percent),
        "intervals": {
            "rows": _plain(plan.intervals.rows),
            "chosen": _plain(plan.intervals.chosen),
            "half": _plain(plan.intervals.half),
            "double": _plain(plan.intervals.double),
        },
        "policies": {found.policy: _plain(found) for found in plan.forecasts},
        "omniscient_bound": _plain(plan.bound),
        "recommendation": _plain(plan.recommendation),
    }
    if not plan.has_prices:
        for found in document["policies"].values():
            for name in ("cost_usd", "aws_savings_percent", "net_savings_percent"):
                found[name] = None
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, Course):  # its least and most, not each change
        return {"least": value.least, "most": value.most, "num_changes": len(value.starts)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
