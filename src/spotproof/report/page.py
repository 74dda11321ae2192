"""The report as one HTML page that opens from the disk, without a network: the picture, the bill, the attempts."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spotproof.plan import embed_figure, frame_page, in_both_lights, plotly_script
from spotproof.report.chain import Chain
from spotproof.report.figures import Row, attempt_rows, chain_rows, job_rows
from spotproof.report.loss import Curve
from spotproof.report.picture import colours_of, labels_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["build_page"]


def build_page(chain: Chain, curve: Curve | None, *, no_curve: str = "") -> str:
    """Return the page.

    Args:
        chain: What it shows: one job or several.
        curve: Loss against step; None without values.
        no_curve: Why there is none.

    Raises:
        SpecError: plotly is not installed.
    """
    library = plotly_script()
    names = [job.job_name for job in chain.jobs]
    title = names[0] if len(names) == 1 else f"{len(names)} jobs, {names[0]} and on"
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if curve is not None:
        parts.append(f'{embed_figure(_figure(curve))}<p class="note">{html.escape(curve.source)}</p>')
    elif no_curve:
        parts.append(f'<p class="warn">{html.escape(no_curve)}</p>')
    if len(chain.jobs) > 1:
        parts += ["<h2>All together</h2>", _rows(chain_rows(chain))]
    for job in chain.jobs:
        kind = "managed spot" if job.is_spot else "on demand"
        parts.append(f"<h2>{html.escape(job.job_name)}: {kind}, {html.escape(job.status)}</h2>")
        if job.failure_reason:
            parts.append(f'<p class="warn">{html.escape(job.failure_reason)}</p>')
        parts.append(_rows(job_rows(job)))
        heads, lines = attempt_rows(job)
        if lines:
            parts.append(_table(heads, lines))
    return frame_page(title, "\n".join(parts), script=library if curve is not None else "")


def _rows(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        name, value, how = (html.escape(text) for text in (row.name, row.value, row.how))
        lines.append(f'<tr><td>{name}</td><td>{value}</td><td class="how">{how}</td></tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _figure(curve: Curve) -> "Figure":
    import plotly.graph_objects as go

    labels, colours, named = labels_of(curve), colours_of(curve), set()
    figure: Any = go.Figure()
    for piece in curve.pieces:
        key = (piece.job_name, piece.attempt)
        name = "lost, and computed again" if piece.is_lost else labels[key]
        figure.add_scatter(
            x=[point.step for point in piece.points],
            y=[point.value for point in piece.points],
            mode="lines" if len(piece.points) > 1 else "markers",
            name=html.escape(name),
            legendgroup=name,
            showlegend=name not in named,
            opacity=0.35 if piece.is_lost else 1.0,
            line={"color": colours[key], "dash": "dash" if piece.is_lost else "solid"},
            hovertemplate=f"step %{{x}}: %{{y:.6g}}<extra>{html.escape(labels[key])}</extra>",
        )
        named.add(name)
    for mark in curve.marks:
        if mark.kind == "reclaimed":
            figure.add_vline(x=mark.step, line={"dash": "dot", "color": "#999", "width": 1})
    metric = html.escape(curve.metric)
    return in_both_lights(figure, f"{metric} against step; dotted: reclaimed", "step", metric, height=520)
