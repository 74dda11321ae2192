"""Capacity drawn at random is like the record it was fitted to."""

import pytest

from spotproof import SpecError
from spotproof.plan import fitted_offer, parse_offers, spells_of


def offer(name):
    (found,) = parse_offers([f"recorded:{name}"], instance_type="", prices=None, spot_price=None)
    return found


def test_a_fitted_offer_is_like_its_record():
    """As long up and away on average, as scattered, for all instances of the job; another seed, other times."""
    recorded = offer("aws-g4dn-us-east-1c")
    drawn = fitted_offer(recorded, 6, seed=1)
    was, now = (spells_of(one.trace, 6).statistics() for one in (recorded, drawn))
    assert now.num_spells == 3000
    assert now.mean_up_seconds == pytest.approx(was.mean_up_seconds, rel=0.1)
    assert now.mean_down_seconds == pytest.approx(was.mean_down_seconds, rel=0.15)
    assert now.up_variation == pytest.approx(was.up_variation, rel=0.15)
    assert drawn.price is recorded.price
    assert fitted_offer(recorded, 6, seed=2).trace != drawn.trace == fitted_offer(recorded, 6, seed=1).trace


def test_without_a_reclaim_there_is_nothing_to_fit():
    """It says of which trace."""
    with pytest.raises(SpecError, match="aws-p3: Nothing can be fitted"):
        fitted_offer(offer("aws-p3"), 1, seed=0)
    with pytest.raises(SpecError, match="1 up-times are too few"):
        fitted_offer(offer("aws-g4dn-us-east-1c"), 1, seed=0)
