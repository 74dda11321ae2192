"""``traces``: what recorded capacity is like, before it is planned with or replayed."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from spotproof.cli.options import Json

if TYPE_CHECKING:
    from spotproof.plan import Offer

__all__ = ["traces"]

_LEAST_CELLS, _MOST_CELLS, _OTHER_CELLS = 8, 32, 84
"""Of the strip, and of all beside it."""
_SHADES: Final = " ░▒▓█"


def traces(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="FILE[@polarity=…][@unit=…] or recorded:NAME. Default: those that come along.", metavar="TRACE"
        ),
    ] = None,
    num_instances: Annotated[
        int | None,
        typer.Option("--instances", help="That a job needs, all at once. Default: half of the most there are.", min=1),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what recorded capacity is like."""
    from spotproof.cli.console import open_console, print_json, print_table
    from spotproof.plan import format_duration, parse_offers
    from spotproof.schedule import RECORDED, RECORDED_PREFIX

    chosen = names or [RECORDED_PREFIX + name for name in sorted(RECORDED)]
    offers = parse_offers(chosen, instance_type="", prices=None, spot_price=None)
    needed = [num_instances or math.ceil(max(offer.trace.available) / 2) or 1 for offer in offers]
    found = [_describe(offer, count) for offer, count in zip(offers, needed, strict=True)]
    if as_json:
        print_json(found)
        return
    num_cells = min(_MOST_CELLS, open_console().width - _OTHER_CELLS)
    has_strip = num_cells >= _LEAST_CELLS
    rows = [
        [
            row["name"],
            f"{row['instances']} of {row['most_instances']}",
            format_duration(row["length_seconds"]),
            f"{100 * row['availability']:.1f} %",
            row["num_up_times"],
            format_duration(row["mean_up_seconds"]),
            f"{row['up_variation']:.1f}",
            *([_strip(offer, row["instances"], num_cells)] if has_strip else []),
        ]
        for offer, row in zip(offers, found, strict=True)
    ]
    figures = ("needs", "length", "there", "ups", "mean", "variation")
    print_table(("trace", *figures, *(["start to end"] if has_strip else [])), rows, right=figures)


def _describe(offer: "Offer", num_instances: int) -> dict[str, Any]:
    from spotproof.plan import spells_of

    statistics = spells_of(offer.trace, num_instances).statistics()
    return {
        "name": offer.name,
        "instances": num_instances,
        "most_instances": max(offer.trace.available),
        "length_seconds": offer.trace.length_seconds,
        "availability": statistics.availability,
        "num_up_times": statistics.num_spells,
        "mean_up_seconds": statistics.mean_up_seconds,
        "median_up_seconds": statistics.median_up_seconds,
        "up_variation": statistics.up_variation,
        "mean_down_seconds": statistics.mean_down_seconds,
    }


def _strip(offer: "Offer", num_instances: int, num_cells: int) -> str:
    shares = offer.trace.shares(num_instances, num_cells)
    return "".join(_SHADES[math.ceil(share * (len(_SHADES) - 1) - 1e-9)] for share in shares)
