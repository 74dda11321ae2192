"""What a job cost: billed seconds times the on-demand price times the instances, and what it would have cost. Pure.

SageMaker bills ``BillableTimeInSeconds`` of each instance at the on-demand price: of a managed spot job it is the
training time after the discount, of an on-demand job all of it.

Source: DescribeTrainingJob, ``BillableTimeInSeconds``: "Multiply this value by the number of instances
(InstanceCount) in your training cluster to get the total compute time SageMaker bills you".
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spotproof.errors import SpecError
from spotproof.plan.prices import Prices

__all__ = ["OLD_AFTER_DAYS", "Cost", "PriceTag", "cost_of", "price_tag", "region_of", "rehearsal_price_tag"]

OLD_AFTER_DAYS: Final = 90
"""AWS changes prices a few times a year; an older file is told to be old."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceTag:
    """The price of one instance of a job, or why there is none."""

    usd_per_hour: float | None
    source: str
    """Of the price: file, date, origin. Without one: why, and the command that gets one."""
    date: datetime.date | None = None
    is_old: bool = False
    """Whether it is more than :data:`OLD_AFTER_DAYS` older than the job's end."""
    is_local: bool = False
    """Whether the job ran on the local SageMaker: the price is of AWS's machine, the seconds are not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """In USD, of all instances together; None where seconds or price are not known."""

    usd: float | None
    """As billed: billable seconds."""
    on_demand_usd: float | None
    """The same running time without the discount."""
    undisturbed_usd: float | None
    """One undisturbed on-demand run."""
    lost_usd: float | None
    """The share of *usd* that was spent on lost steps."""
    usd_per_hour: float | None
    """On demand, of one instance."""
    price_source: str
    """Or why there is no price, and the command that gets one; empty if none was asked for."""
    price_date: str | None
    """ISO 8601."""
    price_is_old: bool
    is_local: bool
    """Whether the seconds are those of the local SageMaker's machine, not of the one that has this price."""


def region_of(description: Mapping[str, Any]) -> str | None:
    """Return the region in the job's ARN."""
    parts = str(description.get("TrainingJobArn", "")).split(":")
    return parts[3] if len(parts) > 4 and parts[3] else None


def price_tag(
    description: Mapping[str, Any], prices: Prices | None, *, today: datetime.date, is_local: bool = False
) -> PriceTag:
    """Return the price of the job's instances, or why none is known.

    Args:
        description: DescribeTrainingJob's answer.
        prices: From a file; None without one.
        today: The age of a running job's prices counts from here; that of a finished one's from its end.
        is_local: Whether it ran on the local SageMaker.
    """
    kind = (description.get("ResourceConfig") or {}).get("InstanceType")
    if not kind:
        return PriceTag(usd_per_hour=None, source="no price: the job's description names no one instance type")
    ended_at = description.get("TrainingEndTime")
    day = ended_at.date() if isinstance(ended_at, datetime.datetime) else today
    return _tag(str(kind), region_of(description), prices, day, is_local=is_local)


def rehearsal_price_tag(
    instance_type: str, region: str | None, prices: Prices | None, *, today: datetime.date
) -> PriceTag:
    """Return the price of the instances that a rehearsed job is for, or why none is known.

    Args:
        instance_type: That the job asks for.
        region: That the job is for; None if it does not say: then that of the file is not questioned.
        prices: From a file; None without one.
        today: The age of the prices counts from here.
    """
    return _tag(instance_type, region, prices, today, is_local=True)


def _tag(kind: str, region: str | None, prices: Prices | None, day: datetime.date, *, is_local: bool) -> PriceTag:
    command = f"`spotproof prices update{f' --region {region}' if region else ''}` gets one"
    if prices is None:
        return PriceTag(usd_per_hour=None, source=f"no price: {command}")
    if prices.region is not None and region is not None and prices.region != region:
        reason = f"no price: {prices.source} has those of {prices.region}, the job is for {region}; {command}"
        return PriceTag(usd_per_hour=None, source=reason)
    try:
        price = prices.of(kind)
    except SpecError:
        return PriceTag(usd_per_hour=None, source=f"no price: {prices.source} has none of {kind}; {command}")
    if price.on_demand_usd_per_hour is None:
        return PriceTag(
            usd_per_hour=None, source=f"no price: {prices.source} has no on-demand price of {kind}; {command}"
        )
    return PriceTag(
        usd_per_hour=price.on_demand_usd_per_hour,
        source=price.source,
        date=price.date,
        is_old=price.date is not None and (day - price.date).days > OLD_AFTER_DAYS,
        is_local=is_local,
    )


def cost_of(
    tag: PriceTag,
    *,
    num_instances: int,
    billable_seconds: float | None,
    training_seconds: float | None,
    undisturbed_seconds: float | None,
    lost_seconds: float | None,
) -> Cost:
    """Return the bill. Seconds are of one instance."""

    def usd(seconds: float | None) -> float | None:
        if seconds is None or tag.usd_per_hour is None:
            return None
        return seconds / 3600 * tag.usd_per_hour * num_instances

    lost = usd(lost_seconds)
    if lost is not None and billable_seconds is not None and training_seconds:
        lost *= billable_seconds / training_seconds  # lost time was billed at the discount, too
    return Cost(
        usd=usd(billable_seconds),
        on_demand_usd=usd(training_seconds),
        undisturbed_usd=usd(undisturbed_seconds),
        lost_usd=lost,
        usd_per_hour=tag.usd_per_hour,
        price_source=tag.source,
        price_date=None if tag.date is None else tag.date.isoformat(),
        price_is_old=tag.is_old,
        is_local=tag.is_local,
    )
