"""What the pages have in common: a frame that needs no network, readable on a phone and in the dark. Needs plotly."""

import html
from typing import TYPE_CHECKING, Any, Final

from spotproof.errors import SpecError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["embed_figure", "frame_page", "in_both_lights", "plotly_script"]

_STYLE: Final = """
:root { color-scheme: light dark; --text: #222; --back: #fff; --faint: #666; --line: #999; --warn: #a15c00;
  --mark: #eef5ee; --code: #f3f3f3; }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --back: #16181b; --faint: #9a9a9a; --line: #666;
  --warn: #e0a050; --mark: #1f2f22; --code: #26292d; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: var(--text);
  background: var(--back); }
h1, h2 { overflow-wrap: anywhere; } h2 { margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .25rem .7rem; text-align: right; white-space: nowrap; } th { border-bottom: 1px solid var(--line); }
td:first-child, th:first-child, td.how { text-align: left; } td.how { white-space: normal; min-width: 14rem; }
td.how, p.note { color: var(--faint); } p.warn, .assumed { color: var(--warn); }
tr.best { font-weight: 600; background: var(--mark); } .advice { border-left: 4px solid #54a24b; padding-left: 1rem; }
code { background: var(--code); padding: .1rem .3rem; }
"""


def plotly_script() -> str:
    """Return plotly's JavaScript, for pages that need nothing from the network.

    Raises:
        SpecError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise SpecError(
            "The page can't be drawn: plotly is not installed.", do="Run pip install 'spotproof[html]'."
        ) from error
    return str(get_plotlyjs())


def frame_page(title: str, body: str, *, script: str = "") -> str:
    """Return a whole page.

    Args:
        title: It is escaped.
        body: HTML.
        script: JavaScript.
    """
    scripts = f"<script>{script}</script>" if script else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style>{scripts}</head><body>\n{body}\n</body></html>\n"
    )


def embed_figure(figure: "Figure") -> str:
    """Return *figure* as HTML for a page that has plotly's script."""
    config = {"displaylogo": False, "responsive": True}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return text


def in_both_lights(figure: "Figure", title: str, x: str, y: str, *, height: int) -> Any:
    """Return *figure* with its titles, in greys that can be read on white and on black."""
    faint = "rgba(128, 128, 128, 0.25)"
    figure.update_layout(
        title=title,
        xaxis_title=x,
        yaxis_title=y,
        height=height,
        template="plotly_white",
        margin={"t": 60, "b": 50, "l": 60, "r": 20},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": "#808080"},
        legend={"orientation": "h", "yanchor": "top", "y": -0.25},  # beside the curves it takes a phone's half
    )
    figure.update_xaxes(gridcolor=faint, zerolinecolor=faint)
    figure.update_yaxes(gridcolor=faint, zerolinecolor=faint)
    return figure
