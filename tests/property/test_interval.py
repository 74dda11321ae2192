"""The interval between saves: that no other keeps more is checked by playing interruptions through."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotproof.checkpoint.optimum import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    SaveCost,
    choose_interval,
    optimal_seconds,
)
from spotproof.checkpoint.tuning import IntervalTuner
from spotproof.checkpoint.uptime import MeanUptime, Uptime, mean_uptime, uptime_of

positive = st.floats(1e-4, 1e5)
costs = st.builds(
    lambda stall, slowdown, durable: SaveCost(stall_seconds=stall, slowdown_seconds=slowdown, durable_seconds=durable),
    st.floats(0, 1e3),
    st.floats(0, 1e3),
    st.floats(0, 1e4),
)
uptimes = st.builds(MeanUptime, st.floats(1, 1e7), st.integers(0, 50))


def kept_share(interval: float, cost: float, latency: float, restart: float, uptimes: list[float]) -> float:
    """Return which share of all that time is training that lives on: saves and kills one after another, no formula."""
    kept = total = 0.0
    for uptime in uptimes:
        total += uptime
        begins = restart + interval
        while begins + latency <= uptime:  # this save becomes durable before the kill
            kept += interval - cost
            begins += interval
    return kept / total


@pytest.mark.parametrize(
    ("cost", "mean", "latency", "restart"),
    [(0.5, 60, 0.5, 5), (0.5, 60, 8.0, 20), (5.0, 60, 5.0, 0), (0.05, 600, 30.0, 60), (30.0, 3600, 300.0, 120)],
)
def test_no_other_interval_keeps_more(cost: float, mean: float, latency: float, restart: float) -> None:
    """Whatever the restart costs and however long a save takes to be durable. Seed 0, 20,000 interruptions."""
    rng = random.Random(0)
    lifetimes = [rng.expovariate(1 / mean) for _ in range(20_000)]
    best = optimal_seconds(cost, mean)

    at_best = kept_share(best, cost, latency, restart, lifetimes)

    for factor in (0.5, 0.7, 1.4, 2.0):
        assert kept_share(best * factor, cost, latency, restart, lifetimes) < at_best * 1.002
    assert kept_share(best * 4, cost, latency, restart, lifetimes) < at_best * 0.995


@given(positive, positive)
def test_the_optimum_solves_its_equation(cost: float, mean: float) -> None:
    """x + e^-x = 1 + C/M, at any ratio of cost and uptime."""
    x = optimal_seconds(cost, mean) / mean
    assert x + math.expm1(-x) == pytest.approx(cost / mean, rel=1e-6)
    assert optimal_seconds(cost, mean) > cost


@given(st.floats(1e-3, 1.0), st.floats(1e3, 1e6))
def test_young_is_its_limit(cost: float, mean: float) -> None:
    """Where saves cost little beside the uptime, the interval is Young's."""
    assert optimal_seconds(cost, mean) == pytest.approx(math.sqrt(2 * cost * mean), rel=0.02)


@given(costs, uptimes, st.floats(0.001, 0.5), st.booleans())
def test_bounds_hold(cost: SaveCost, uptime: MeanUptime, budget: float, is_measured_once: bool) -> None:
    """Never two saves at once; never beyond the budget unless the choice says why; a second to fifteen minutes."""
    choice = choose_interval(cost, uptime, budget, is_measured_once=is_measured_once)

    assert choice.seconds >= cost.stall_seconds + cost.durable_seconds
    assert choice.seconds >= SHORTEST_SECONDS
    share = cost.seconds / choice.seconds
    if share > budget * 1.000001:
        assert is_measured_once or (uptime.interruptions >= 3 and choice.seconds >= uptime.seconds)
    if choice.bound in ("optimum", "shortest", "longest"):
        assert choice.seconds <= LONGEST_SECONDS
    assert "nan" not in choice.reason
    assert "inf" not in choice.reason


@given(costs, uptimes, st.floats(0.001, 0.5))
def test_more_interruptions_never_lengthen_it(cost: SaveCost, uptime: MeanUptime, budget: float) -> None:
    """A shorter uptime asks for saves as often, or more often."""
    shorter = MeanUptime(uptime.seconds / 2, uptime.interruptions)
    assert choose_interval(cost, shorter, budget).seconds <= choose_interval(cost, uptime, budget).seconds * 1.000001


@given(st.lists(st.builds(Uptime, st.floats(0, 1e6), st.booleans()), max_size=12), st.floats(0, 1e7))
def test_mean_uptime_lies_between_what_was_assumed_and_what_was_seen(seen: list[Uptime], current: float) -> None:
    """Each interruption shortens it, and time in which nothing happens does not."""
    mean = mean_uptime(seen, current)
    count = sum(uptime.is_interrupted for uptime in seen)
    assert mean.interruptions == count
    if count:
        measured = max(1.0, (sum(uptime.seconds for uptime in seen) + current) / count)
        assert min(measured, 7200) * 0.5 <= mean.seconds <= max(measured, 7200) * 1.001
    else:
        assert mean.seconds >= mean_uptime([]).seconds * 0.999
    assert mean_uptime([*seen, Uptime(0.0, True)], current).seconds <= mean.seconds * 1.001
    assert mean_uptime([*seen, Uptime(600.0, False)], current).seconds >= mean.seconds * 0.999


@given(st.binary(max_size=400))
def test_any_bytes_can_be_an_event_file(content: bytes) -> None:
    """What the platform delivered may be anything."""
    prefix = b'{"event":"progress","attempt":0,"at":"2026-01-01T00:00:00.000000+00:00","step":1,"epoch":0}\n'
    uptime = uptime_of(prefix + content)
    assert uptime is not None
    assert uptime.seconds >= 0


@given(
    st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e4), st.floats(0, 1e4)), min_size=1, max_size=30),
    st.lists(st.builds(Uptime, st.floats(0, 1e5), st.booleans()), max_size=5),
)
def test_whatever_is_measured_the_wait_is_finite_and_within_bounds(
    measures: list[tuple[float, float, float]], earlier: list[Uptime]
) -> None:
    """Any sequence of stalls, durable times and steps leads to a wait, and a further decision changes nothing."""
    tuner, now = IntervalTuner(0.02, uptimes=earlier), 0.0
    for stall, durable, step in measures:
        tuner.saved(stall, now, now)
        tuner.step(step, is_writing=True)
        tuner.committed(durable)
        for _ in range(9):
            tuner.step(step, is_writing=False)
        tuner.decide(now)
        assert SHORTEST_SECONDS <= tuner.seconds < math.inf
        assert tuner.decide(now) is None
        now += tuner.seconds
