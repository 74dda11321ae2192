"""Prices are read, dated, and refused with file, line and remedy."""

import json
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


def history(*entries):
    """A history of type `t`: (zone, price, day of January, what runs on it)."""
    names = ("AvailabilityZone", "SpotPrice", "Timestamp", "ProductDescription")
    rows = [
        dict(zip(names, (zone, str(usd), f"2026-01-{day:02}T00:00:00Z", *more), strict=False), InstanceType="t")
        for zone, usd, day, *more in entries
    ]
    return json.dumps({"SpotPriceHistory": rows})


def test_a_recorded_history_is_played_again():
    """EC2's own output, a zone's prices as they moved; it says whose price it is, of when, and how far it moved."""
    prices = parse_prices(HISTORY.read_text(), "p3.json")
    recorded = [
        row for row in json.loads(HISTORY.read_text())["SpotPriceHistory"] if row["AvailabilityZone"] == "us-east-1b"
    ]
    one = prices.of("ml.p3.2xlarge", "us-east-1b")
    amounts = [float(row["SpotPrice"]) for row in recorded]
    assert one.course.least * one.spot_usd_per_hour == pytest.approx(min(amounts))
    assert one.course.most * one.spot_usd_per_hour == pytest.approx(max(amounts))
    assert one.on_demand_usd_per_hour is None
    assert "2020-03" in one.source
    assert "SageMaker's" in one.source
    assert "median of" in prices.of("ml.p3.2xlarge").source


def test_the_mean_is_over_time_whatever_the_order():
    """Two days at 1, one at 4, and the last price for as long as one holds on average: a day and a half."""
    found = parse_prices(history(("z", 4, 3), ("z", 1, 1), ("z", 2, 4)), "f").of("t")
    assert found.spot_usd_per_hour == pytest.approx((2 * 1 + 1 * 4 + 1.5 * 2) / 4.5)
    assert found.course.length_seconds == 4.5 * 86400
    assert parse_prices(history(("z", 4, 3), ("z", 4, 5)), "f").of("t").course is None


def test_of_several_zones_the_median_at_each_moment():
    """A zone counts from its first price on."""
    text = history(("a", 1, 1), ("b", 3, 2), ("c", 9, 3), ("a", 5, 3))
    found = parse_prices(text, "f").of("t")
    assert list(found.course.factors * found.spot_usd_per_hour) == pytest.approx([1, 2, 5])


def test_prices_of_other_systems_do_not_count():
    """Windows costs more; SageMaker runs Linux."""
    text = history(("z", 1, 1, "Linux/UNIX (Amazon VPC)"), ("z", 9, 1, "Windows"), ("z", 8, 1, "SUSE Linux"))
    assert parse_prices(text, "f").of("t").spot_usd_per_hour == 1
    with pytest.raises(SpecError, match="of Linux/UNIX"):
        parse_prices(history(("z", 9, 1, "Windows")), "f")


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
