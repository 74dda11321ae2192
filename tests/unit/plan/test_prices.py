"""Prices are read, dated, and refused with file, line and remedy."""

from pathlib import Path

import pytest

from spotproof import SpecError
from spotproof.plan import parse_prices

HISTORY = Path(__file__).parents[2] / "data/traces/training_on_a_dime/p3.2xlarge.json"
TABLE = """\
date: 2026-11-20
source: https://example.com/prices
prices:
  ml.g5.xlarge: {on_demand: 1.408, spot: 0.61}
  ml.p3.2xlarge:
    on_demand: 3.825
"""


def test_a_recorded_history_gives_the_newest_price_of_each_zone():
    """EC2's own output; of several zones the median, and it says whose price it is and of when."""
    prices = parse_prices(HISTORY.read_text(), "p3.json")
    zones = prices.by_type["p3.2xlarge"]
    assert len(zones) > 3
    one = prices.of("ml.p3.2xlarge", "us-east-1b")
    assert one.spot_usd_per_hour == zones["us-east-1b"].spot_usd_per_hour
    assert one.on_demand_usd_per_hour is None
    assert "2020-03" in one.source
    assert "SageMaker's" in one.source
    ordered = sorted(price.spot_usd_per_hour for price in zones.values())
    assert ordered[0] <= prices.of("ml.p3.2xlarge").spot_usd_per_hour <= ordered[-1]


def test_the_newest_counts_whatever_the_order():
    """Not the first of the file."""
    entry = '{{"InstanceType": "t", "AvailabilityZone": "z", "SpotPrice": "{}", "Timestamp": "2026-01-0{}"}}'
    text = '{"SpotPriceHistory": [' + ", ".join([entry.format(1, 1), entry.format(3, 3), entry.format(2, 2)]) + "]}"
    assert parse_prices(text, "f").of("t").spot_usd_per_hour == 3


def test_a_table_of_ones_own():
    """On demand and spot, or one of them; the date is part of what is told."""
    prices = parse_prices(TABLE, "prices.yaml")
    assert prices.of("ml.g5.xlarge").spot_usd_per_hour == 0.61
    assert prices.of("ml.p3.2xlarge").spot_usd_per_hour is None
    assert prices.of("ml.g5.xlarge").source == "prices.yaml, 2026-11-20, https://example.com/prices"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "line 1"),
        ("a: [1,\nb: 2", "prices.yaml, line 2"),
        ("3", "holds no prices"),
        ("prices: {}", "of when"),
        (TABLE.replace("0.61", "-1"), "line 4, prices.ml.g5.xlarge.spot: -1 is no price above 0"),
        (TABLE.replace("on_demand: 3.825", "price: 3"), "line 5, prices.ml.p3.2xlarge"),
        ('{"SpotPriceHistory": [{"InstanceType": "t"}]}', "SpotPriceHistory[0]"),
        (
            '{"SpotPriceHistory": [\n{"InstanceType": "t", "AvailabilityZone": "z", "Timestamp": "1",\n'
            '"SpotPrice": "cheap"}]}',
            "line 3, SpotPriceHistory[0].SpotPrice: 'cheap'",
        ),
        ('{"SpotPriceHistory": []}', "holds no prices"),
    ],
)
def test_bad_prices_are_refused(text, named):
    """Where, what, and the form that would be right."""
    with pytest.raises(SpecError) as caught:
        parse_prices(text, "prices.yaml")
    assert named in str(caught.value)
    assert caught.value.do


def test_unknown_types_and_zones_are_refused_with_those_that_are_known():
    """Never made up."""
    with pytest.raises(SpecError, match=r"no price of ml\.x9\.large") as caught:
        parse_prices(TABLE, "prices.yaml").of("ml.x9.large")
    assert "ml.g5.xlarge" in str(caught.value)
    with pytest.raises(SpecError, match="mars-1a"):
        parse_prices(HISTORY.read_text(), "p3.json").of("ml.p3.2xlarge", "mars-1a")
