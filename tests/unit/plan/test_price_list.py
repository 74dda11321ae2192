"""AWS's Price List becomes a dated file that report and plan read; what is no training instance is passed over."""

import datetime
import json

import pytest

from price_list_sample import LIST, product
from spotproof import SpecError
from spotproof.plan import parse_prices, parse_products, price_file


def test_training_instances_of_the_region_alone():
    """Endpoints, warm pools, plans, other regions, other units and entries without a price are left out."""
    found = parse_products(LIST, region="us-west-2")
    assert found.usd_per_hour == {"ml.g5.xlarge": 1.408, "ml.p4d.24xlarge": 37.688}
    assert found.published == datetime.date(2026, 11, 20)


def test_the_file_says_when_and_whence_and_is_read_again():
    """Date, source and region are in it; the figures come back as they were."""
    found = parse_products(LIST, region="us-west-2")
    text = price_file(found, today=datetime.date(2026, 11, 27))
    prices = parse_prices(text, "us-west-2.yaml")
    assert prices.region == "us-west-2"
    price = prices.of("ml.p4d.24xlarge")
    assert price.on_demand_usd_per_hour == 37.688
    assert price.spot_usd_per_hour is None
    assert price.date == datetime.date(2026, 11, 27)
    assert price.source == ("us-west-2.yaml, 2026-11-27, AWS Price List API, AmazonSageMaker, published 2026-11-20")


def test_two_prices_of_one_thing_are_not_chosen_from():
    """Rather none than a wrong one."""
    with pytest.raises(SpecError, match=r"two prices of ml\.g5\.xlarge in us-west-2: 1\.408 and 2 USD"):
        parse_products([*LIST, product("USW2-Train:ml.g5.xlarge", "2")], region="us-west-2")
    entry = json.loads(LIST[0])
    (term,) = entry["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    term["priceDimensions"]["other"] = {**dimension, "pricePerUnit": {"USD": "3"}}
    with pytest.raises(SpecError, match=r"several on-demand prices of USW2-Train:ml\.g5\.xlarge: 1\.408, 3\.0"):
        parse_products([json.dumps(entry)], region="us-west-2")
