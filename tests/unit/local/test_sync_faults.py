"""The grammar of faults of the sync agent, and what a plan says of each upload."""

import pytest

from spotproof.errors import SpecError
from spotproof.local.sync_faults import NO_SYNC_FAULTS, parse_sync_faults

WHERE = {"attempt": 0, "host": 0}


def outcomes(text, names, *, attempt=0, size=100):
    plan = parse_sync_faults(text)
    return [plan.fate(name, size, attempt=attempt, host=0, number=0) for name in names]


NAMES = [f"packs/{index}" for index in range(1000)]


@pytest.mark.parametrize(
    ("text", "named", "remedy"),
    [
        ("", "''", "Write one of"),
        ("tear:0.2", "'tear:0.2'", "torn, corrupt"),
        ("torn", "'torn'", "KIND:VALUE"),
        ("torn:0", "'0'", "torn:0.2"),
        ("torn:1.5", "'1.5'", "torn:0.2"),
        ("torn:0.2@seed=x", "'x'", "@seed=7"),
        ("torn:0.2@attempt=x", "'x'", "@attempt=0-2"),
        ("torn:0.2@attempt=3-1", "'3-1'", "@attempt=0-2"),
        ("torn:0.2@files=", "files is empty", "@files=packs/*"),
        ("late:5", "'5'", "late:30s"),
        ("late:5s@share=2", "'2'", "late:0.2"),
        ("reorder:oldest", "'oldest'", "reorder:newest"),
        ("stall:after", "'after'", "stall:20"),
        ("no-flush:1", "no value", "no-flush"),
        ("no-flush@seed=1", "'seed'", "@attempt"),
        ("download-fail:0", "'0'", "download-fail:2"),
        ("none,torn:1", "'none'", "by itself"),
    ],
)
def test_a_bad_item_is_named_with_the_remedy(text, named, remedy):
    """A plan that can't be used says which item, why, and what would be right."""
    with pytest.raises(SpecError) as caught:
        parse_sync_faults(text)

    assert named in str(caught.value)
    assert remedy in str(caught.value)


def test_none_does_nothing():
    """Without faults all uploads are whole, at once, in order, flushed."""
    assert parse_sync_faults("none") is NO_SYNC_FAULTS
    assert {fate.outcome for fate in outcomes("none", NAMES)} == {"whole"}
    assert NO_SYNC_FAULTS.delay_seconds("a", **WHERE, number=0) == 0
    assert NO_SYNC_FAULTS.order(["a", "b"], {}, **WHERE, look=1) is None
    assert not NO_SYNC_FAULTS.is_stalled(attempt=0, num_uploads=10**6, seconds=10**6)
    assert NO_SYNC_FAULTS.is_flushed(attempt=0)
    assert not NO_SYNC_FAULTS.download_breaks(attempt=1, number=0)
    assert not NO_SYNC_FAULTS.is_download_lost("a", attempt=1, host=0)


def test_the_seed_decides_which_uploads_are_hit():
    """The same seed spoils the same files in the same way, another one others, and as many as the share says."""
    text = "torn:0.2@seed=3,corrupt:0.1@seed=3,lost:0.1@seed=3"

    assert outcomes(text, NAMES) == outcomes(text, list(NAMES))
    assert outcomes(text, NAMES) == list(reversed(outcomes(text, list(reversed(NAMES)))))
    assert outcomes(text, NAMES) != outcomes(text.replace("3", "4"), NAMES)
    found = [fate.outcome for fate in outcomes(text, NAMES)]
    assert 130 < found.count("torn") < 230
    assert 60 < found.count("lost") < 140
    assert 40 < found.count("corrupt") < 110, "of what is neither lost nor torn"


def test_what_is_torn_is_shorter_and_what_is_empty_stays():
    """A torn file keeps from none to all but one of its bytes; an altered byte is one it has; of none, none."""
    assert all(0 <= fate.at_byte < 3 for fate in outcomes("torn:1", NAMES, size=3))
    assert all(0 <= fate.at_byte < 3 for fate in outcomes("corrupt:1", NAMES, size=3))
    assert {fate.outcome for fate in outcomes("torn:1,corrupt:1", NAMES, size=0)} == {"whole"}
    assert {fate.outcome for fate in outcomes("lost:1", NAMES, size=0)} == {"lost"}


def test_each_upload_of_a_file_is_drawn_anew():
    """A file that is uploaded again is not spoiled for ever."""
    plan = parse_sync_faults("torn:0.5")
    found = {plan.fate("a", 9, attempt=0, host=0, number=number).outcome for number in range(50)}
    assert found == {"torn", "whole"}


def test_attempts_and_files_narrow_a_fault():
    """`@attempt` takes one, a range, or all from one on; `@files` a pattern over the whole name."""
    hit = [a for a in range(5) if outcomes("torn:1@attempt=1-2", ["x"], attempt=a)[0].outcome == "torn"]
    assert hit == [1, 2]
    assert [a for a in range(5) if not parse_sync_faults("no-flush@attempt=3-").is_flushed(attempt=a)] == [3, 4]
    assert [a for a in range(5) if not parse_sync_faults("no-flush@attempt=3").is_flushed(attempt=a)] == [3]
    fates = outcomes("lost:1@files=packs/*", ["packs/a/b", "step-1.json"])
    assert [fate.outcome for fate in fates] == ["lost", "whole"]


def test_order_and_delay():
    """Newest first, smallest first or drawn; late by the given time, in its share of the uploads."""
    names, sizes = ["pack", "state", "manifest"], {"pack": 9, "state": 5, "manifest": 1}

    def order(text):
        return parse_sync_faults(text).order(names, sizes, **WHERE, look=1)

    assert order("reorder") == order("reorder:newest") == ["manifest", "state", "pack"]
    assert order("reorder:smallest") == ["manifest", "state", "pack"]
    plan = parse_sync_faults("reorder:random@seed=1")
    drawn = {tuple(plan.order(names, sizes, **WHERE, look=look) or names) for look in range(100)}
    assert len(drawn) == 6
    assert parse_sync_faults("reorder").order(["one"], {"one": 1}, **WHERE, look=1) is None
    late = parse_sync_faults("late:5s@share=0.5")
    delays = [late.delay_seconds(name, **WHERE, number=0) for name in NAMES]
    assert set(delays) == {0, 5}
    assert 400 < delays.count(5) < 600


def test_stalls_and_downloads():
    """An agent stops after so many uploads or so long; a download breaks off so many times."""
    assert not parse_sync_faults("stall:3").is_stalled(attempt=0, num_uploads=2, seconds=10**6)
    assert parse_sync_faults("stall:3").is_stalled(attempt=0, num_uploads=3, seconds=0)
    assert not parse_sync_faults("stall:3s").is_stalled(attempt=0, num_uploads=10**6, seconds=2.9)
    assert parse_sync_faults("stall:3s").is_stalled(attempt=0, num_uploads=0, seconds=3)
    breaks = [parse_sync_faults("download-fail:2").download_breaks(attempt=1, number=n) for n in range(4)]
    assert breaks == [True, True, False, False]
    lost = [parse_sync_faults("download-lost:0.3").is_download_lost(name, attempt=1, host=0) for name in NAMES]
    assert 230 < lost.count(True) < 370
