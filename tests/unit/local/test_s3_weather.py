"""The grammar of faults of S3, and what a plan says of each request."""

from collections import Counter

import pytest

from spotproof.errors import SpecError
from spotproof.local.s3_faults import S3Weather, parse_s3_faults
from spotproof.local.s3proxy import Disturbance

PATHS = [f"/bucket/packs/{index}" for index in range(1000)]


def disturbances(text, method="PUT", number=0):
    return [parse_s3_faults(text).disturbance(method, path, number) for path in PATHS]


@pytest.mark.parametrize(
    ("text", "named", "remedy"),
    [
        ("errors:0.1", "'errors:0.1'", "error, throttle"),
        ("error:2", "'2'", "error:0.2"),
        ("latency:5", "'5'", "latency:30s"),
        ("bandwidth:5", "'5'", "bandwidth:5MB/s"),
        ("bandwidth:0MB/s", "'0MB/s'", "above 0"),
        ("reset:0.1@method=get", "'get'", "GET"),
        ("reset:0.1@keys=", "keys is empty", "@keys="),
        ("error:0.1@seed=-1", "'-1'", "@seed=7"),
    ],
)
def test_a_bad_item_is_named_with_the_remedy(text, named, remedy):
    """A plan that can't be used says which item, why, and what would be right."""
    with pytest.raises(SpecError) as caught:
        parse_s3_faults(text)

    assert named in str(caught.value)
    assert remedy in str(caught.value)


def test_the_seed_decides_which_requests_are_hit():
    """The same seed hits the same requests, in whatever order they come, and as many as the share says."""
    text = "error:0.1@seed=1,throttle:0.2@seed=1,reset:0.1@seed=1"

    assert disturbances(text) == disturbances(text)
    assert disturbances(text) != disturbances(text.replace("seed=1", "seed=2"))
    assert disturbances(text) != disturbances(text, number=1), "a request that is repeated would fail for ever"
    kinds = Counter(kind for _, found in disturbances(text) for kind in found)
    assert 60 < kinds["error"] < 140
    assert 150 < kinds["throttle"] < 250
    errors = Counter(found.error for found, _ in disturbances(text) if found is not None)
    assert set(errors) == {None, (503, "SlowDown"), (500, "InternalError")}
    resets = [found.reset_after_bytes for found, kinds in disturbances("reset:1") if found is not None]
    assert min(resets) == 0
    assert max(resets) > 100_000


def test_slowness_adds_up_and_is_narrowed():
    """Latency and bandwidth hold together; method and key pattern say for which requests."""
    plan = parse_s3_faults("latency:200ms,bandwidth:5MB/s,bandwidth:1MiB/s@keys=bucket/packs/*,latency:1s@method=GET")

    assert plan.disturbance("PUT", "/bucket/a", 0)[0] == Disturbance(delay_seconds=0.2, bytes_per_second=5e6)
    packs = plan.disturbance("GET", "/bucket/packs/%C3%A4", 0)[0]
    assert packs == Disturbance(delay_seconds=1.2, bytes_per_second=2**20)
    assert parse_s3_faults("error:1@method=GET").disturbance("PUT", "/bucket/a", 0) == (None, ())


def test_the_weather_counts_requests_and_tells_faults():
    """The n-th request of a kind gets the n-th answer; a new plan begins anew; without faults nothing is counted."""
    told = []
    weather = S3Weather(lambda kind, what: told.append((kind, what)))
    assert weather("GET", "/b/k") is None
    weather.set(parse_s3_faults("throttle:0.5@seed=5"))
    first = [weather("GET", "/b/k") for _ in range(20)]
    weather.set(parse_s3_faults("throttle:0.5@seed=5"))

    assert [weather("GET", "/b/k") for _ in range(20)] == first
    assert 0 < len(told) < 40
    assert set(told) == {("throttle", "GET /b/k")}
