"""When to save, and what to keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotproof import SpecError
from spotproof.checkpoint.interval import SaveSchedule
from spotproof.checkpoint.retain import steps_to_keep


def test_the_newest_are_kept():
    """Where everything is safe, the newest `keep`."""
    assert steps_to_keep([10, 20, 30, 40], safe=[10, 20, 30, 40], keep=2, resumed_from=None) == {30, 40}


def test_the_one_resumed_from_stays_until_enough_newer_ones_are_safe():
    """It is proven; the newer ones are not yet."""
    assert 10 in steps_to_keep([10, 20, 30], safe=[10, 20], keep=2, resumed_from=10)
    assert 10 not in steps_to_keep([10, 20, 30], safe=[10, 20, 30], keep=2, resumed_from=10)


@given(st.sets(st.integers(0, 99)), st.data(), st.integers(2, 5))
def test_never_fewer_than_keep_and_never_unbounded(committed, data, keep):
    """At least `keep` of the committed and of the safe ones stay, and at most twice that and one."""
    safe = data.draw(st.sets(st.sampled_from(sorted(committed)))) if committed else set()
    resumed_from = data.draw(st.none() | st.sampled_from(sorted(committed))) if committed else None
    kept = steps_to_keep(committed, safe=safe, keep=keep, resumed_from=resumed_from)
    assert kept <= committed
    assert len(kept) >= min(keep, len(committed))
    assert len(kept & safe) >= min(keep, len(safe))
    assert len(kept) <= 2 * keep + 1


def test_whichever_trigger_comes_first():
    """Steps or seconds."""
    schedule = SaveSchedule(every_n_steps=10, every_n_seconds=60)
    schedule.saved(100, now=1000.0)
    assert not schedule.is_due(109, now=1059.0)
    assert schedule.is_due(110, now=1001.0)
    assert schedule.is_due(101, now=1060.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"every_n_steps": None, "every_n_seconds": None},
        {"every_n_steps": 0, "every_n_seconds": None},
        {"every_n_steps": True, "every_n_seconds": None},
        {"every_n_steps": None, "every_n_seconds": -1},
        {"every_n_steps": None, "every_n_seconds": "often"},
    ],
)
def test_schedules_that_can_not_work_are_refused(wrong):
    """Before anything starts, with the value in the message."""
    with pytest.raises(SpecError):
        SaveSchedule(**wrong)
