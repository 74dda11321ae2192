"""What machines cost: from a file, dated, never made up. Pure: text in.

    {"SpotPriceHistory": [{"AvailabilityZone": …, "InstanceType": …, "SpotPrice": "1.14", "Timestamp": …}, …]}

is what ``aws ec2 describe-spot-price-history`` prints: the price of each type and zone as it moved. Those of Linux
count, and there is no on-demand price in it. The other form is our own, YAML or JSON::

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from spotproof.errors import SpecError
from spotproof.plan.course import Course, course_of

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
    """The mean over time where it moves."""
    source: str
    """File, date, and what has to be said of it."""
    date: datetime.date | None = None
    """Of when it is, the newest where it moves; None if it was given by hand."""
    course: Course | None = None
    """How the spot price moves; None if it does not."""


Changes = Sequence[tuple[float, float]]
"""When a price began to hold, in seconds since 1970, and the price in USD per hour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """All prices of a file."""

    source: str
    region: str | None = None
    """That they are valid in; None if the file does not say."""
    by_type: Mapping[str, Price] = field(default_factory=dict)
    """Of each instance type, where they stand still."""
    history: Mapping[str, Mapping[str, Changes]] = field(default_factory=dict)
    """Spot prices as they moved: of each instance type, of each zone."""

    def has(self, instance_type: str) -> bool:
        """Return whether there is a price of *instance_type*, or of the EC2 machine it is."""
        known = {*self.by_type, *self.history}
        return instance_type in known or instance_type.removeprefix("ml.") in known

    def of(self, instance_type: str, zone: str | None = None) -> Price:
        """Return the price of *instance_type*; of several zones, and none named, the median.

        Raises:
            SpecError: The file has no such type or zone.
        """
        known = {**self.by_type, **self.history}
        named = instance_type if instance_type in known else instance_type.removeprefix("ml.")
        if named not in known:
            raise SpecError(
                f"There is no price of {instance_type} in {self.source}.",
                why=f"It has those of {', '.join(sorted(known))}.",
                do="Correct the type, add it to the file, or give --spot-price and --on-demand-price.",
            )
        price = self.by_type[named] if named in self.by_type else self._replayed(named, zone)
        if named == instance_type:
            return price
        return Price(
            on_demand_usd_per_hour=price.on_demand_usd_per_hour,
            spot_usd_per_hour=price.spot_usd_per_hour,
            source=f"{price.source}; {_EC2}",
            date=price.date,
            course=price.course,
        )

    def _replayed(self, instance_type: str, zone: str | None) -> Price:
        zones = self.history[instance_type]
        if zone is not None and zone not in zones:
            raise SpecError(
                f"There is no price of {instance_type} in {zone} in {self.source}.",
                why=f"It has those in {', '.join(sorted(zones))}.",
                do="Correct @zone, or leave it out for the median of them.",
            )
        found = zones if zone is None else {zone: zones[zone]}
        mean, course = course_of(found)
        times = [seconds for changes in found.values() for seconds, _ in changes]
        first, last = (_day(edge) for edge in (min(times), max(times)))
        source = f"{self.source}, {first}" if first == last else f"{self.source}, {first} to {last}"
        if course is not None:
            source += f", {course.least * mean:.4g} to {course.most * mean:.4g}"
        if len(found) > 1:
            source += f"; median of {len(found)} zones"
        return Price(on_demand_usd_per_hour=None, spot_usd_per_hour=mean, source=source, date=last, course=course)


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
    history: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for index, entry in enumerate(entries):
        try:
            kind, zone = str(entry["InstanceType"]), str(entry["AvailabilityZone"])
            at, amount, system = str(entry["Timestamp"]), entry["SpotPrice"], str(entry.get("ProductDescription", ""))
        except (KeyError, TypeError, AttributeError):
            raise SpecError(
                f"{source}, SpotPriceHistory[{index}]: a field is missing.",
                why="It needs InstanceType, AvailabilityZone, SpotPrice and Timestamp.",
                do=_FORM,
            ) from None
        where = f"{source}{_line_of(text, json.dumps(amount))}, SpotPriceHistory[{index}]"
        usd, seconds = _usd(amount, f"{where}.SpotPrice"), _seconds(at, f"{where}.Timestamp")
        # Windows and the Linuxes with a licence cost more, and SageMaker runs neither.
        if not system or system.startswith("Linux/UNIX"):
            history.setdefault(kind, {}).setdefault(zone, []).append((seconds, usd))
    if not history:
        raise SpecError(
            f"{source} holds no prices{' of Linux/UNIX' if entries else ''}.",
            do="Ask for another time, type or --product-descriptions, and write it again.",
        )
    return Prices(source=source, history=history)


def _seconds(text: str, where: str) -> float:
    try:
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise SpecError(f"{where}: {text!r} is no time.", do="Write it as 2026-11-20T08:00:00Z.") from None
    return at.replace(tzinfo=at.tzinfo or datetime.timezone.utc).timestamp()


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
    by_type: dict[str, Price] = {}
    for kind, fields in document["prices"].items():
        where = f"{source}{_line_of(text, str(kind))}, prices.{kind}"
        if not isinstance(fields, dict) or not fields or set(fields) - {"on_demand", "spot"}:
            raise SpecError(f"{where}: it is not on_demand and spot, in USD per hour.", do=_FORM)
        amounts = {name: _usd(value, f"{where}.{name}") for name, value in fields.items()}
        by_type[str(kind)] = Price(
            on_demand_usd_per_hour=amounts.get("on_demand"),
            spot_usd_per_hour=amounts.get("spot"),
            source=origin,
            date=day,
        )
    return Prices(source=source, region=None if region is None else str(region), by_type=by_type)


def _day(seconds: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).date()


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
