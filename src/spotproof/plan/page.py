"""The plan as one HTML page: cost against deadline, the trace as a strip, the interval's curve. Needs plotly."""

import html
import math
from typing import TYPE_CHECKING, Final

from spotproof.plan.advise import Plan
from spotproof.plan.curves import deadline_curves
from spotproof.plan.html import embed_figure, frame_page, in_both_lights, plotly_script
from spotproof.plan.table import format_duration

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["build_page"]

_COLOURS: Final = {
    "spot": "#e8833a",
    "on-demand": "#7f7f7f",
    "greedy": "#4c78a8",
    "uniform-progress": "#54a24b",
    "none can beat": "#b279a2",
}
_STRIP_CHANGES: Final = 2000
"""More of them can't be told apart on a screen."""


def build_page(plan: Plan, *, name: str) -> str:
    """Return the page as HTML that needs nothing from the network.

    Args:
        plan: What it shows.
        name: Of the job; it is escaped.

    Raises:
        SpecError: plotly is not installed.
    """
    script = plotly_script()
    title = html.escape(name)
    parts = [
        f"<h1>{title}: {format_duration(plan.question.work_seconds)} of work in "
        f"{format_duration(plan.question.deadline_seconds)}</h1>",
        _advice(plan),
        _policy_table(plan),
        *(embed_figure(figure) for figure in (_cost_figure(plan), _strip_figure(plan), _interval_figure(plan))),
        _costs_table(plan),
    ]
    return frame_page(name, "\n".join(parts), script=script)


def _advice(plan: Plan) -> str:
    advice = plan.recommendation
    wait = f", max_wait: {advice.max_wait}" if advice.max_wait is not None else ""
    settings = (
        f"use_spot_instances: {str(advice.use_spot_instances).lower()}, max_run: {advice.max_run}{wait}, "
        f"max_retry_attempts: {advice.max_retry_attempts}, every_n_seconds: {advice.every_n_seconds:.4g}"
    )
    return (
        f'<div class="advice"><p><b>Take {html.escape(advice.policy)}.</b> {html.escape(advice.reason)}</p>'
        f"<p>{html.escape(advice.how)}</p><p><code>{html.escape(settings)}</code></p></div>"
    )


def _policy_table(plan: Plan) -> str:
    heads = ["policy", "in time", "done p50 / p90 / p99", "on demand", "lost", "waits", "reclaims"]
    if plan.has_prices:
        heads += ["USD p50 / p90 / p99", "net savings", "AWS savings"]
    rows = []
    for found in plan.forecasts:
        done = found.finish_seconds
        cells = [
            found.policy,
            f"{100 * found.deadline_share:.4g} %",
            " / ".join("never" if math.isinf(v) else f"{v / 3600:.1f} h" for v in (done.p50, done.p90, done.p99)),
            format_duration(found.on_demand_seconds),
            format_duration(found.lost_seconds.mean),
            format_duration(found.waiting_seconds.mean),
            f"{found.reclaims.mean:.1f}",
        ]
        if plan.has_prices:
            cost = found.cost_usd
            cells += [
                f"{cost.p50:.2f} / {cost.p90:.2f} / {cost.p99:.2f}",
                f"{round(found.net_savings_percent)} %",
                f"{round(found.aws_savings_percent)} %",
            ]
        best = ' class="best"' if found.policy == plan.recommendation.policy else ""
        rows.append(f"<tr{best}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    note = f"Simulated: {plan.question.num_jobs} start times, seed {plan.question.seed}."
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div><p>{note}</p>'


def _costs_table(plan: Plan) -> str:
    costs, rows = plan.question.costs, []
    for name in type(costs).__slots__:
        figure = getattr(costs, name)
        if figure is not None:
            label = name.replace("_seconds", "").replace("_", " ")
            source = f'<td class="{figure.source}">{figure.source}</td>'
            rows.append(f"<tr><td>{label}</td><td>{figure.value:.4g} s</td>{source}</tr>")
    sources = [plan.question.on_demand, *(pool.spot for pool in plan.pools)]
    prices = "; ".join(dict.fromkeys(html.escape(price.source) for price in sources if price is not None))
    said = f"<p>Prices: {prices or 'none'}.</p>"
    return f"<h2>Reckoned with</h2><table>{''.join(rows)}</table>{said}"


def _cost_figure(plan: Plan) -> "Figure":
    import plotly.graph_objects as go

    figure = go.Figure()
    for curve in deadline_curves(plan):
        hours = [seconds / 3600 for seconds in curve.deadline_seconds]
        burden = list(curve.burden) if plan.has_prices else [value / 3600 for value in curve.burden]
        is_bound = curve.policy == "none can beat"
        figure.add_scatter(
            x=hours,
            y=burden,
            name=f"{curve.policy}, in time" if is_bound else curve.policy,
            mode="lines" if is_bound else "lines+markers",
            line={"color": _COLOURS[curve.policy], "dash": "dot" if is_bound else "solid"},
            customdata=[100 * share for share in curve.deadline_share],
            hovertemplate="%{y:.2f}, in time in %{customdata:.1f} %<extra>" + curve.policy + "</extra>",
        )
    figure.add_vline(x=plan.question.deadline_seconds / 3600, line={"dash": "dash", "color": "#999"})
    unit = "mean cost, USD" if plan.has_prices else "mean hours on demand"
    return in_both_lights(figure, "Cost against deadline", "deadline, hours", unit, height=460)


def _strip_figure(plan: Plan) -> "Figure":
    import plotly.graph_objects as go

    figure = go.Figure()
    for offer in plan.question.offers:
        trace, needed = offer.trace, plan.question.num_instances
        times = [seconds / 3600 for seconds in trace.starts[:_STRIP_CHANGES]]
        counts = [int(count >= needed) for count in trace.available[:_STRIP_CHANGES]]
        end = trace.starts[_STRIP_CHANGES] if len(trace.starts) > _STRIP_CHANGES else trace.length_seconds
        end = end / 3600 if math.isfinite(end) else times[-1] + 24.0
        widths = [after - before for before, after in zip(times, [*times[1:], end], strict=True)]
        ups = [index for index, count in enumerate(counts) if count]
        figure.add_bar(
            y=[offer.name] * len(ups),
            x=[widths[index] for index in ups],
            base=[times[index] for index in ups],
            orientation="h",
            marker={"color": "#54a24b", "line": {"width": 0}},
            hovertemplate="up %{x:.2f} h<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(rangemode="tozero")  # a trace that begins without capacity
    return in_both_lights(figure, "When capacity is there", "hours in the trace", "", height=160 + 40 * len(plan.pools))


def _interval_figure(plan: Plan) -> "Figure":
    import plotly.graph_objects as go

    found = plan.intervals
    figure = go.Figure()
    for name, colour, values in (
        ("by the formula", "#4c78a8", [row.expected_running for row in found.curve]),
        ("on the trace", "#e8833a", [row.replayed_running for row in found.curve]),
    ):
        points = [
            (row.interval_seconds, 100 * (1 - 1 / value))
            for row, value in zip(found.curve, values, strict=True)
            if value is not None and math.isfinite(value)
        ]
        if points:
            figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], name=name, line={"color": colour})
    chosen = found.chosen
    figure.add_scatter(
        x=[chosen.interval_seconds],
        y=[100 * (1 - 1 / (chosen.replayed_running or chosen.expected_running))],
        name=f"chosen: {format_duration(chosen.interval_seconds)}",
        mode="markers",
        marker={"size": 12, "color": "#54a24b"},
    )
    figure.update_xaxes(type="log")
    return in_both_lights(figure, "How often to save", "seconds between saves", "machine time lost, %", height=460)
