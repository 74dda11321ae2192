"""What machines cost: from a file, dated, never made up. Pure: text in.

    {"SpotPriceHistory": [{"AvailabilityZone": …, "InstanceType": …, "SpotPrice": "1.14", "Timestamp": …}, …]}

is what ``aws ec2 describe-spot-price-history`` prints: of each type and zone the newest price counts, and there is no
on-demand price in it. The other form is our own, YAML or JSON::

    date: 2026-11-20
    source: https://aws.amazon.com/sagemaker/pricing/
    region: us-east-1
    prices:
      ml.g5.xlarge: {on_demand: 1.408, spot: 0.61}

``spotproof prices update`` writes this form (:mod:`spotproof.plan.price_list`).
"""

import datetime
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spotproof.errors import SpecError

__all__ = ["Price", "Prices", "parse_prices"]

_FORM: Final = (
    "It is what `aws ec2 describe-spot-price-history` prints, or YAML with `date: 2026-11-20` and "
    "`prices: {ml.g5.xlarge: {on_demand: 1.408, spot: 0.61}}`."
)
_EC2: Final = "EC2's price; SageMaker's for the same machine is higher"


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Of one instance, in USD per hour; None where the file has none."""

    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    source: str
    """File, date, and what has to be said of it."""
    date: datetime.date | None = None
    """Of when it is; None if it was given by hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """All prices of a file."""

    source: str
    region: str | None = None
    """That they are valid in; None if the file does not say."""
    by_type: Mapping[str, Mapping[str, Price]]
    """Instance type, then zone; the zone is empty where the file names none."""

    def of(self, instance_type: str, zone: str | None = None) -> Price:
        """Return the price of *instance_type*; of several zones, and none named, the median.

        Raises:
            SpecError: The file has no such type or zone.
        """
        bare = instance_type.removeprefix("ml.")
        zones = self.by_type.get(instance_type) or self.by_type.get(bare)
        if zones is None:
            known = ", ".join(sorted(self.by_type))
            raise SpecError(
                f"There is no price of {instance_type} in {self.source}.",
                why=f"It has those of {known}.",
                do="Correct the type, add it to the file, or give --spot-price and --on-demand-price.",
            )
        is_ec2 = instance_type not in self.by_type
        if zone is not None and zone not in zones and "" not in zones:
            raise SpecError(
                f"There is no price of {instance_type} in {zone} in {self.source}.",
                why=f"It has those in {', '.join(sorted(zones))}.",
                do="Correct @zone, or leave it out for the median of them.",
            )
        found = [zones.get(zone, zones.get(""))] if zone is not None else list(zones.values())
        prices = [price for price in found if price is not None]
        return Price(
            on_demand_usd_per_hour=_median([price.on_demand_usd_per_hour for price in prices]),
            spot_usd_per_hour=_median([price.spot_usd_per_hour for price in prices]),
            source=prices[0].source
            + (f"; median of {len(prices)} zones" if len(prices) > 1 else "")
            + (f"; {_EC2}" if is_ec2 else ""),
            date=min((price.date for price in prices if price.date is not None), default=None),
        )


def parse_prices(text: str, source: str) -> Prices:
    """Return the prices in *text*.

    Args:
        text: The file.
        source: Its name, for messages.

    Raises:
        SpecError: Names file, line or entry, and the remedy.
    """
    import yaml

    try:
        document = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise SpecError(f"{source}{line}: this is no JSON.", why=str(error) + ".", do=_FORM) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise SpecError(f"{source}{where}: this is no YAML.", do=_FORM) from error
    if isinstance(document, dict) and isinstance(document.get("SpotPriceHistory"), list):
        return _parse_history(document["SpotPriceHistory"], text, source)
    if isinstance(document, dict) and isinstance(document.get("prices"), dict):
        return _parse_table(document, text, source)
    raise SpecError(f"{source} holds no prices.", do=_FORM)


def _parse_history(entries: list[Any], text: str, source: str) -> Prices:
    newest: dict[tuple[str, str], tuple[str, float]] = {}
    for index, entry in enumerate(entries):
        try:
            key = (str(entry["InstanceType"]), str(entry["AvailabilityZone"]))
            at, amount = str(entry["Timestamp"]), entry["SpotPrice"]
        except (KeyError, TypeError):
            raise SpecError(
                f"{source}, SpotPriceHistory[{index}]: a field is missing.",
                why="It needs InstanceType, AvailabilityZone, SpotPrice and Timestamp.",
                do=_FORM,
            ) from None
        usd = _usd(amount, f"{source}{_line_of(text, json.dumps(amount))}, SpotPriceHistory[{index}].SpotPrice")
        if key not in newest or at > newest[key][0]:
            newest[key] = (at, usd)
    if not newest:
        raise SpecError(f"{source} holds no prices.", do="Ask for another time or type, and write it again.")
    by_type: dict[str, dict[str, Price]] = {}
    for (kind, zone), (at, usd) in newest.items():
        by_type.setdefault(kind, {})[zone] = Price(
            on_demand_usd_per_hour=None, spot_usd_per_hour=usd, source=f"{source}, {at[:10]}", date=_date_of(at[:10])
        )
    return Prices(source=source, by_type=by_type)


def _parse_table(document: dict[str, Any], text: str, source: str) -> Prices:
    date = document.get("date")
    if date is None:
        raise SpecError(
            f"{source} does not say of when its prices are.",
            why="Prices change.",
            do="Add a line `date: 2026-11-20`.",
        )
    day = _date_of(str(date))
    if day is None:
        raise SpecError(f"{source}: {str(date)!r} is no date.", do="Write year, month and day: `date: 2026-11-20`.")
    region = document.get("region")
    origin = f"{source}, {date}" + (f", {document['source']}" if document.get("source") else "")
    by_type: dict[str, dict[str, Price]] = {}
    for kind, fields in document["prices"].items():
        where = f"{source}{_line_of(text, str(kind))}, prices.{kind}"
        if not isinstance(fields, dict) or not fields or set(fields) - {"on_demand", "spot"}:
            raise SpecError(f"{where}: it is not on_demand and spot, in USD per hour.", do=_FORM)
        amounts = {name: _usd(value, f"{where}.{name}") for name, value in fields.items()}
        price = Price(
            on_demand_usd_per_hour=amounts.get("on_demand"),
            spot_usd_per_hour=amounts.get("spot"),
            source=origin,
            date=day,
        )
        by_type[str(kind)] = {"": price}
    return Prices(source=source, region=None if region is None else str(region), by_type=by_type)


def _date_of(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def _usd(value: Any, where: str) -> float:
    try:
        usd = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        usd = math.nan
    if not 0 < usd < math.inf:
        raise SpecError(f"{where}: {value!r} is no price above 0.", do="Write USD per hour, as in 1.408.")
    return usd


def _line_of(text: str, words: str) -> str:
    place = text.find(words)
    return f", line {text.count(chr(10), 0, place) + 1}" if place >= 0 else ""


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
