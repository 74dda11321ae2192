"""``--trace FILE@price=0.97@zone=us-west-2a``: spot capacity as a person names it. Reads the file; else pure.

A trace that comes with Spotproof is named ``recorded:aws-p3``.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Final

from spotproof.errors import SpecError
from spotproof.plan.capacity import Offer
from spotproof.plan.prices import Price, Prices
from spotproof.schedule import RECORDED_PREFIX, Grammar, Trace, Words, read_trace

__all__ = ["parse_offers"]

_GRAMMAR: Final = Grammar(
    subject="Trace",
    options={"trace": ("polarity", "unit", "price", "speed", "zone", "type")},
    examples="--trace FILE · --trace FILE@price=0.97 · --trace FILE@polarity=unavailable@zone=us-west-2a",
    path_values=frozenset({"trace"}),
)


def parse_offers(
    texts: Sequence[str],
    *,
    instance_type: str,
    prices: Prices | None,
    spot_price: Price | None,
    read: Callable[[str], str] | None = None,
) -> tuple[Offer, ...]:
    """Return the capacity that *texts* name, each a trace file with options.

    Args:
        texts: ``FILE`` and ``@price=`` (USD per hour of an instance), ``@speed=`` (of its machines, the on-demand ones
            at 1), ``@zone=`` and ``@type=`` (to look up its price), ``@polarity=``, ``@unit=``.
        instance_type: Of the job.
        prices: From a file; None without one.
        spot_price: For traces that say none themselves.
        read: Reads a trace file; the default reads UTF-8 from disk.

    Raises:
        SpecError: Names the file and what is wrong with it.
    """
    words = [_words(text) for text in texts]
    traces = [read_trace(each, read) for each in words]
    _check_polarities(words, traces)
    names = _names([each.value for each in words])
    return tuple(
        Offer(
            name=name,
            trace=trace,
            price=_price(each, instance_type, prices, spot_price),
            speed=_positive(each, "speed", "0.8") or 1.0,
        )
        for name, each, trace in zip(names, words, traces, strict=True)
    )


def _words(text: str) -> Words:
    # The grammar's commas part items; a file's name may have one.
    words = _GRAMMAR.parse_item(f"trace:{text}", shown=text)
    if not words.value:
        raise words.bad("it names no file.", "Write --trace FILE.")
    return words


def _check_polarities(words: Sequence[Words], traces: Sequence[Trace]) -> None:
    """Refuse a mix of traces that were turned round and others that say nothing: they mean the opposite."""
    turned = next((each for each in words if each.options.get("polarity") == "unavailable"), None)
    for each, trace in zip(words, traces, strict=True):
        if turned is not None and "polarity" not in each.options and max(trace.available) <= 1:
            raise each.bad(
                f"it does not say what its 1 means, and of {turned.value!r} it is said to be `unavailable`.",
                "Say it for each: @polarity=available or @polarity=unavailable.",
            )


def _price(words: Words, instance_type: str, prices: Prices | None, spot_price: Price | None) -> Price | None:
    usd = _positive(words, "price", "0.97")
    if usd is not None:
        return Price(on_demand_usd_per_hour=None, spot_usd_per_hour=usd, source="given")
    zone, kind = words.options.get("zone"), words.options.get("type")
    if prices is None:
        for option, value in (("zone", zone), ("type", kind)):
            if value is not None:
                raise words.bad(f"@{option} looks up a price, and there is no --prices.", "Add --prices, or @price=.")
        return spot_price
    if spot_price is not None and zone is None and kind is None:
        return spot_price
    return prices.of(kind or instance_type, zone)


def _positive(words: Words, option: str, example: str) -> float | None:
    if option not in words.options:
        return None
    value = words.number(option, math.nan, example=example)
    if value == 0:
        raise words.bad(f"{option} 0 makes no sense.", f"Write @{option}={example}.")
    return value


def _names(paths: Sequence[str]) -> list[str]:
    stems = [PurePath(path.removeprefix(RECORDED_PREFIX)).stem for path in paths]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise SpecError(f"The trace {twice!r} is given twice.", do="Name each once: one file is one zone and type.")
    return stems if len(set(stems)) == len(stems) else list(paths)
