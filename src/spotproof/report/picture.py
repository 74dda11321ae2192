"""The article's picture as an image: loss against step, the second run beginning where the first stopped.

Drawn by matplotlib, which needs no browser.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from spotproof.errors import SpecError
from spotproof.report.loss import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "colours_of", "draw_curve", "labels_of", "write_image"]

COLOURS: Final = ("#4c78a8", "#e8833a", "#54a24b", "#b279a2", "#9d755d", "#e45756", "#72b7b2", "#79706e")
"""Of the jobs of a chain, of the attempts of a single job; the first again after the last."""
_SUFFIXES: Final = (".png", ".svg", ".pdf")


def labels_of(curve: Curve) -> dict[tuple[str, int], str]:
    """Return the name in the legend of each attempt: the job's where there are several, else the attempt's."""
    keys = list(dict.fromkeys((piece.job_name, piece.attempt) for piece in curve.pieces))
    jobs = {job for job, _ in keys}
    return {(job, attempt): job if len(jobs) > 1 else f"attempt {attempt}" for job, attempt in keys}


def colours_of(curve: Curve) -> dict[tuple[str, int], str]:
    """Return the colour of each attempt; attempts of one name have one."""
    labels = labels_of(curve)
    names = list(dict.fromkeys(labels.values()))
    return {key: COLOURS[names.index(label) % len(COLOURS)] for key, label in labels.items()}


def write_image(curve: Curve, path: Path) -> None:
    """Write the picture; its form follows the name's end.

    Raises:
        SpecError: The name ends in no known form, the folder can't be written to, or matplotlib is not installed.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise SpecError(
            f"--image {path}: {path.suffix or 'a name without an end'} is no form of a picture.",
            do=f"Let the name end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}.",
        )
    figure = draw_curve(curve)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise SpecError(f"--image {path} can't be written ({error.strerror}).", do="Name another file.") from error


def draw_curve(curve: Curve) -> "Figure":
    """Return the picture as matplotlib's figure, 9 x 5 inches.

    Raises:
        SpecError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SpecError(
            "The picture can't be drawn: matplotlib is not installed.", do="Run pip install 'spotproof[image]'."
        ) from error
    figure = Figure(figsize=(9, 5), layout="constrained")  # no pyplot: it keeps state, and may want a display
    axes: Any = figure.add_subplot()
    labels, colours, named = labels_of(curve), colours_of(curve), set()
    for piece in curve.pieces:
        key = (piece.job_name, piece.attempt)
        label = "lost, and computed again" if piece.is_lost else labels[key]
        axes.plot(
            [point.step for point in piece.points],
            [point.value for point in piece.points],
            color=colours[key],
            alpha=0.3 if piece.is_lost else 1.0,
            linewidth=1.4,
            linestyle="--" if piece.is_lost else "-",
            marker="o" if len(piece.points) == 1 else None,
            markersize=3,
            label=label if label not in named else "_nolegend_",
        )
        named.add(label)
    for mark in curve.marks:
        if mark.kind == "reclaimed":
            label = "reclaimed"
            axes.axvline(
                mark.step,
                color="#999999",
                linewidth=0.8,
                linestyle=":",
                label=label if label not in named else "_nolegend_",
            )
            named.add(label)
    axes.set_xlabel("step")
    axes.set_ylabel(curve.metric)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper right")
    figure.text(0.995, 0.005, curve.source, ha="right", va="bottom", fontsize=6, color="#888888")
    return figure
