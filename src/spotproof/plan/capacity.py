"""Spot capacity that a plan reckons with: recorded, drawn at random like a record, or assumed. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from spotproof.errors import SpecError
from spotproof.plan.generate import Lengths, fit_spells, generate_trace
from spotproof.plan.prices import Price
from spotproof.plan.spells import spells_of
from spotproof.schedule import Trace

__all__ = ["ASSUMED_DOWN", "ASSUMED_UP", "Offer", "assumed_offer", "fitted_offer"]

ASSUMED_UP: Final = Lengths(mean_seconds=3 * 3600.0, variation=2.0)
ASSUMED_DOWN: Final = Lengths(mean_seconds=1.5 * 3600.0, variation=2.0)
"""Reckoned with where there is no trace: between those recorded of busy GPU types, whose means are 0.7 to 10 hours."""
_DRAWN_SPELLS: Final = 3000


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """Spot capacity as the user names it: a trace, and a price if there is one."""

    name: str
    trace: Trace
    is_assumed: bool = False
    price: Price | None = None
    """Of one instance."""
    speed: float = 1.0


def assumed_offer(up: Lengths, down: Lengths, seed: int, price: Price | None) -> Offer:
    """Return capacity that comes and goes at random, for plans without a trace."""
    trace = generate_trace(up, down, _DRAWN_SPELLS, seed)
    return Offer(name="assumed", trace=trace, is_assumed=True, price=price)


def fitted_offer(offer: Offer, num_instances: int, seed: int) -> Offer:
    """Return capacity drawn at random that is like the record of *offer*: as long up and away, as scattered.

    Raises:
        SpecError: The record has too few reclaims of *num_instances*.
    """
    spells = spells_of(offer.trace, num_instances)
    try:
        up, down = fit_spells(spells)
    except SpecError as error:
        raise SpecError(f"{offer.name}: {error.what}", why=error.why, do="Leave --fitted out.") from error
    drawn = generate_trace(up, down, _DRAWN_SPELLS, seed)
    counts = tuple(count * num_instances for count in drawn.available)
    return replace(offer, name=f"{offer.name}, fitted", trace=replace(drawn, available=counts))
