"""AWS's Price List to a file of prices: on-demand training instances of SageMaker. Pure: text in, text out.

A managed spot job has no price of its own: what AWS bills is ``BillableTimeInSeconds``, the training time after the
spot discount, at the on-demand price of the instance. So that price is all that a bill needs.

Source: GetProducts of the AWS Price List API, a list of JSON texts, one a product; the usage type of a training
instance is ``USE1-Train:ml.m5.large``, and it alone always names the instance.
"""

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from spotproof.errors import SpecError

__all__ = ["PriceList", "parse_products", "price_file"]

_TRAINING: Final = re.compile(r"(?:[A-Z0-9]+-)?Train:(ml\.[a-z0-9-]+\.[a-z0-9-]+)")
"""Not those of warm pools, training plans, processing, notebooks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceList:
    """What the Price List says of one region."""

    region: str
    published: datetime.date | None
    """When AWS published the newest entry of it."""
    usd_per_hour: Mapping[str, float]
    """Instance type to the on-demand price of one instance."""


def parse_products(products: Iterable[str], *, region: str) -> PriceList:
    """Return the prices of training instances among *products*; what is something else is passed over.

    Raises:
        SpecError: A training instance has no one on-demand price in USD per hour, or two different ones.
    """
    found: dict[str, float] = {}
    published: list[datetime.date] = []
    for text in products:
        product = json.loads(text)
        attributes = product.get("product", {}).get("attributes", {})
        usage = _TRAINING.fullmatch(str(attributes.get("usagetype", "")))
        if usage is None or attributes.get("regionCode", region) != region:
            continue
        kind, usd = usage[1], _hourly_usd(product)
        if usd is None:
            continue  # an entry without terms: announced, or no longer sold
        if found.setdefault(kind, usd) != usd:
            raise SpecError(
                f"The Price List has two prices of {kind} in {region}: {found[kind]:g} and {usd:g} USD per hour.",
                do="Look at AWS's page, and write the right one into a file: see docs/accounting.md.",
            )
        day = str(product.get("publicationDate", ""))[:10]
        if re.fullmatch(r"\d{4}-\d\d-\d\d", day):
            published.append(datetime.date.fromisoformat(day))
    return PriceList(region=region, published=max(published, default=None), usd_per_hour=found)


def _hourly_usd(product: Mapping[str, Any]) -> float | None:
    amounts = set()
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            usd = dimension.get("pricePerUnit", {}).get("USD")
            if dimension.get("unit") in ("Hrs", "Hours", "hours", "hrs") and usd is not None and float(usd) > 0:
                amounts.add(float(usd))
    if len(amounts) > 1:
        kind = product["product"]["attributes"]["usagetype"]
        raise SpecError(
            f"The Price List has several on-demand prices of {kind}: {', '.join(map(str, sorted(amounts)))}.",
            do="Look at AWS's page, and write the right one into a file: see docs/accounting.md.",
        )
    return amounts.pop() if amounts else None


def price_file(found: PriceList, *, today: datetime.date) -> str:
    """Return the text of a file of prices that :func:`spotproof.plan.prices.parse_prices` reads.

    Args:
        found: What the Price List says.
        today: When it said so.
    """
    published = f", published {found.published}" if found.published else ""
    lines = [
        "# On-demand prices of SageMaker training, USD per hour of one instance; written by `spotproof prices update`.",
        f"date: {today}",
        f"source: AWS Price List API, AmazonSageMaker{published}",
        f"region: {found.region}",
        "prices:",
        *(f"  {kind}: {{on_demand: {usd!r}}}" for kind, usd in sorted(found.usd_per_hour.items())),
    ]
    return "\n".join(lines) + "\n"
