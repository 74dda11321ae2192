"""The plan as a person reads it: what is reckoned with, each policy with its bar, and the advice last."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from spotproof.plan.advise import Plan
from spotproof.plan.costs import Figure
from spotproof.plan.forecast import Forecast, Spread

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["format_duration", "render_plan"]

_BAR_CELLS: Final = 10
_EIGHTHS: Final = "▏▎▍▌▋▊▉█"
_WIDE: Final = 110
"""Columns of a terminal that has room for all that is told of the policies in one table."""


def render_plan(plan: Plan, console: "Console") -> None:
    """Print *plan*; the figures are those of :func:`spotproof.plan.to_json`."""
    from rich.text import Text

    question = plan.question
    console.print()
    console.print(
        Text.assemble(
            (f"{format_duration(question.work_seconds)} of work", "bold"),
            f" in {format_duration(question.deadline_seconds)}, "
            f"{question.num_instances} instance{'s' if question.num_instances > 1 else ''}",
        )
    )
    for line in _capacity(plan):
        console.print(Text(line, style="dim"))
    for table in _policies(plan, console.width):
        console.print(table)
    if plan.has_prices:
        console.print(_money(plan))
    console.print(_intervals(plan))
    console.print(_costs(plan))
    console.print()
    console.print(_advice(plan))
    console.print()


def _capacity(plan: Plan) -> list[str]:
    lines = []
    for pool in plan.pools:
        found = pool.statistics
        text = f"{pool.name}: there {100 * found.availability:.1f} % of the time"
        if math.isfinite(found.mean_up_seconds) and found.num_spells:
            text += (
                f", up {format_duration(found.mean_up_seconds)} on average"
                f" (median {format_duration(found.median_up_seconds)}, variation {found.up_variation:.1f})"
            )
        if pool.is_assumed:
            text += "; assumed: give a --trace"
        if pool.spot is not None and pool.spot.spot_usd_per_hour is not None:
            text += f"; spot {pool.spot.spot_usd_per_hour:.4g} USD/h ({pool.spot.source})"
        lines.append(text)
    price = plan.question.on_demand
    if plan.has_prices and price is not None:
        lines.append(f"on demand {price.on_demand_usd_per_hour:.4g} USD/h ({price.source})")
    else:
        lines.append("No prices: give --prices FILE, or --spot-price and --on-demand-price, for costs and savings.")
    lines.append(f"Simulated: {plan.question.num_jobs} start times, seed {plan.question.seed}.")
    return lines


def _policies(plan: Plan, width: int) -> "list[Table]":
    """Return what becomes of the job by each policy: one table, or two on a narrow terminal, none of them cut."""
    from rich.text import Text

    headings = ("policy", "in time", "done p50/p90/p99", "on demand", "lost", "waits", "reclaims")
    rows = [
        (
            _name(plan, found),
            Text.assemble(_bar(found.deadline_share), f" {_percent(found.deadline_share)}"),
            _hours(found),
            format_duration(found.on_demand_seconds),
            format_duration(found.lost_seconds.mean),
            format_duration(found.waiting_seconds.mean),
            f"{found.reclaims.mean:.1f}",
        )
        for found in plan.forecasts
    ]
    every = tuple(range(len(headings)))
    parts = [every] if width >= _WIDE else [every[:4], (0, *every[4:])]
    tables = []
    for part in parts:
        table = _table(*(headings[column] for column in part))
        for row in rows:
            table.add_row(*(row[column] for column in part))
        tables.append(table)
    return tables


def _money(plan: Plan) -> "Table":
    from rich.text import Text

    table = _table("policy", "net savings", "USD p50/p90/p99", "mean", "AWS savings")
    for found in plan.forecasts:
        table.add_row(
            _name(plan, found),
            _saved(found.net_savings_percent),
            _dollars(found.cost_usd),
            f"{found.cost_usd.mean:.2f}",
            f"{round(found.aws_savings_percent)} %",
        )
    if plan.bound is not None and math.isfinite(plan.bound.cost_usd.mean):
        cost, saved = plan.bound.cost_usd, _saved(plan.bound.net_savings_percent)
        table.add_row(Text("  none can beat", style="dim"), saved, _dollars(cost), f"{cost.mean:.2f}", "")
    return table


def _table(*headings: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index, heading in enumerate(headings):
        is_left = index == 0 or heading in ("in time", "net savings", "")  # those with a bar, and the interval's length
        table.add_column(heading, justify="left" if is_left else "right", no_wrap=True)
    return table


def _name(plan: Plan, found: Forecast) -> "Text":
    from rich.text import Text

    is_best = found.policy == plan.recommendation.policy
    return Text(("▸ " if is_best else "  ") + found.policy, style="bold" if is_best else "")


def _saved(percent: float) -> "Text":
    from rich.text import Text

    return Text.assemble(_bar(percent / 100), f" {round(percent)} %")


def _dollars(cost: Spread) -> str:
    return f"{cost.p50:.2f}/{cost.p90:.2f}/{cost.p99:.2f}"


def _intervals(plan: Plan) -> "Table":
    found = plan.intervals
    has_replay = found.chosen.replayed_running is not None
    table = _table("save every", "", "machine time lost, by the formula", *(["on the trace"] if has_replay else []))
    named = [*((row.name, row) for row in found.rows), ("▸ chosen", found.chosen)]
    for name, row in [*named, ("  half of it", found.half), ("  twice", found.double)]:
        cells = [name, format_duration(row.interval_seconds), _overhead(row.expected_running)]
        if has_replay:
            cells.append(_overhead(row.replayed_running))
        table.add_row(*cells)
    return table


def _costs(plan: Plan) -> "Table":
    from rich.table import Table
    from rich.text import Text

    costs = plan.question.costs
    figures: Sequence[tuple[str, Figure | None]] = (
        ("a save stops training", costs.stall_seconds),
        ("and slows steps", costs.slowdown_seconds),
        ("until it is committed", costs.commit_seconds),
        ("and mirrored to S3", costs.mirror_seconds),
        ("a machine until Training", costs.platform_seconds),
        ("and until the first step", costs.warm_up_seconds),
        ("a step", costs.seconds_per_step),
    )
    table = Table.grid(padding=(0, 2))
    for what, figure in figures:
        if figure is not None:
            style = "yellow" if figure.source == "assumed" else "dim"
            table.add_row(what, _short(figure.value), Text(figure.source, style=style))
    return table


def _advice(plan: Plan) -> "Text":
    from rich.text import Text

    advice = plan.recommendation
    head = ("Take ", f"{advice.policy}") if advice.is_spot_worth_it else ("Take ", "on-demand")
    lines = [Text.assemble((head[0], "bold"), (head[1], "bold green"), f": {advice.reason}"), Text(advice.how)]
    wait = f", max_wait: {advice.max_wait}" if advice.max_wait is not None else ""
    lines.append(
        Text(
            f"use_spot_instances: {str(advice.use_spot_instances).lower()}, max_run: {advice.max_run}{wait}, "
            f"max_retry_attempts: {advice.max_retry_attempts}, every_n_seconds: {advice.every_n_seconds:.4g}",
            style="cyan",
        )
    )
    if plan.break_even_percent is not None:
        lines.append(
            Text(
                f"Spot alone is cheaper below {plan.break_even_percent:.0f} % of the on-demand price.",
                style="dim",
            )
        )
    return Text("\n").join(lines)


def _bar(share: float) -> "Text":
    from rich.text import Text

    eighths = round(max(0.0, min(1.0, share)) * _BAR_CELLS * 8)
    whole, rest = divmod(eighths, 8)
    bar = "█" * whole + (_EIGHTHS[rest - 1] if rest else "")
    style = "green" if share >= 0.95 else "yellow" if share >= 0.5 else "red"
    return Text(bar.ljust(_BAR_CELLS), style=style)


def _percent(share: float) -> str:
    """Return *share* in percent; 100 only if it is all of them."""
    return "100 %" if share == 1 else f"{min(99.9, 100 * share):.1f} %"


def _hours(found: Forecast) -> str:
    return "/".join(
        "never" if math.isinf(value) else f"{value / 3600:.1f}"
        for value in (found.finish_seconds.p50, found.finish_seconds.p90, found.finish_seconds.p99)
    ) + (" h")


def _overhead(running: float | None) -> str:
    if running is None or math.isinf(running):
        return "all"
    return f"{100 * (1 - 1 / running):.2f} %"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if 0 < seconds < 1 else f"{seconds:.3g} s"


def format_duration(seconds: float) -> str:
    """Return a duration for people: ``250 ms``, ``42 s``, ``3.5 min``, ``4.2 h``."""
    if math.isinf(seconds):
        return "for ever"
    if seconds < 90:
        return _short(seconds)
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.4g} h"
