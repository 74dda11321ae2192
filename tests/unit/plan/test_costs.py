"""Costs are measured, given or assumed, and say so; offers and traces from files."""

import pytest

from spotproof import SpecError
from spotproof.plan import Price, costs_of, parse_offers
from spotproof.plan.costs import ASSUMED

REPORT = {
    "stall_seconds": {"p50": 0.2, "p95": 0.4},
    "durable_seconds": {"p50": 3.0, "p95": 9.0},
    "slowdown_seconds": 0.1,
    "attempts": [
        {"resumed_from_step": 0, "start_up_seconds": 90.0, "seconds_per_step": 0.5},
        {"resumed_from_step": 100, "start_up_seconds": 30.0, "seconds_per_step": 0.7},
        {"resumed_from_step": None, "start_up_seconds": None, "seconds_per_step": None},
    ],
}
TICKS = '{"metadata": {"gap_seconds": 600}, "data": [1, 1, 0]}'


def test_what_was_measured_counts_and_an_option_beats_it():
    """A start-up is that of the restarts, which restore; what nobody measured is marked as assumed."""
    costs = costs_of(REPORT, {"commit_seconds": 7.0})
    assert (costs.stall_seconds.value, costs.stall_seconds.source) == (0.2, "measured")
    assert costs.save_seconds == pytest.approx(0.3)
    assert (costs.commit_seconds.value, costs.commit_seconds.source) == (7.0, "given")
    assert (costs.warm_up_seconds.value, costs.warm_up_seconds.source) == (30.0, "measured")
    assert costs.seconds_per_step is not None
    assert costs.seconds_per_step.value == pytest.approx(0.6)
    assert costs.mirror_seconds.source == costs.platform_seconds.source == "assumed"


def test_without_a_report_all_is_assumed():
    """But the time of a step, which nobody can assume."""
    costs = costs_of(None, {})
    assert all(getattr(costs, name).source == "assumed" for name in ASSUMED)
    assert costs.seconds_per_step is None


def offers(*texts, spot_price=None, prices=None, content=TICKS):
    return parse_offers(
        texts, instance_type="ml.g5.xlarge", prices=prices, spot_price=spot_price, read=lambda path: content
    )


def test_the_polarity_trap():
    """The same numbers turned round: 1 stands for preempted, and availability is the opposite."""
    as_published, turned = offers("a.json")[0], offers("a.json@polarity=unavailable")[0]
    assert as_published.trace.available_at(0) == 1
    assert turned.trace.available_at(0) == 0
    assert turned.trace.available_at(1300) == 1
    with pytest.raises(SpecError, match="polarity"):
        offers("a.json", content=TICKS.replace("600", '600, "start_time": 3'))
    with pytest.raises(SpecError, match=r"does not say what its 1 means.*turned\.json"):
        offers("plain.json", "turned.json@polarity=unavailable")
    assert len(offers("plain.json@polarity=available", "turned.json@polarity=unavailable")) == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a.json@price=0", "price 0"),
        ("a.json@price=-3", "'-3'"),
        ("a.json@speed=x", "'x'"),
        ("a.json@zone=us-west-2a", "no --prices"),
        ("a.json@colour=red", "'colour'"),
        ("", "names no file"),
    ],
)
def test_bad_offers_are_refused(text, named):
    """In the words of the option."""
    with pytest.raises(SpecError, match=named):
        offers(text)


def test_a_file_is_one_offer():
    """Given twice, it would be counted twice; files of one name keep their folders."""
    with pytest.raises(SpecError, match="twice"):
        offers("a.json", "a.json")
    assert [offer.name for offer in offers("x/a.json", "y/a.json")] == ["x/a.json", "y/a.json"]
    price = Price(on_demand_usd_per_hour=None, spot_usd_per_hour=2.0, source="given")
    both = offers("a.json", "b.json@price=0.5@speed=0.8", spot_price=price)
    assert [offer.price.spot_usd_per_hour for offer in both] == [2.0, 0.5]
    assert both[1].speed == 0.8


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("0,4\n60,x", "line 2: 'x' is not a count"),
        ("0,4\n\n60,3\n30,2", "line 4: 30 comes after 60"),
        ("0,add,a\n60,explode,b", "line 2: 'explode'"),
        ("0,4\n60,3,a", "line 2: 3 cells after lines of 2"),
        ("soon,4\n60,3", "line 1: 'soon' is no time"),
        ('[0, "add", {"nodes": [], "duration": 60000}]\n[1, 2]', "line 2"),
        ('{"metadata": {"gap_seconds": 600},\n "data": [1,]}', "line 2"),
        ('{"metadata": {"gap_seconds": 600}, "data": [1, 0, -1]}', "-1 at index 2"),
        ('{"metadata": {"gap_seconds": "x"}, "data": [1]}', "'x'"),
    ],
)
def test_bad_traces_name_file_and_line(content, named):
    """And what would be right."""
    with pytest.raises(SpecError) as caught:
        offers("some.csv", content=content)
    assert "some.csv" in str(caught.value)
    assert named in str(caught.value)
    assert caught.value.do


def test_recorded_fleets_are_read():
    """Parcae's log and Bamboo's steps, whole."""
    found = parse_offers(
        ["recorded:aws-p3", "recorded:aws-g4dn-us-east-1c"],
        instance_type="ml.p3.2xlarge",
        prices=None,
        spot_price=None,
    )
    assert [offer.name for offer in found] == ["aws-p3", "aws-g4dn-us-east-1c"]
    assert max(found[0].trace.available) == 32
    assert max(found[1].trace.available) <= 16
