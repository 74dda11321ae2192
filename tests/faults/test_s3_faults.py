"""Direct S3 through a network that fails: retried, bounded, said once, and nothing wrong in between."""

import random
import time

import boto3
import pytest
import torch
from s3_proxy import S3Proxy, first
from writer_process import Values

from spotproof import SpecError
from spotproof.checkpoint import Checkpointer, newest_verified, read_manifest, verify
from spotproof.checkpoint import stalled as stalling
from spotproof.checkpoint import writer as writing
from spotproof.checkpoint.journal import read_events
from spotproof.checkpoint.manifest import manifest_key
from spotproof.errors import CheckpointUnreadable
from spotproof.events import CheckpointCommitted, SaveFailed, SaveStalled
from spotproof.storage import open_storage

MANY_PARTS = 40_000_000
BUCKET = "s3-faults"


@pytest.fixture
def proxy(s3_server, monkeypatch):
    """A proxy in front of the server, with the environment that leads to it."""
    made = S3Proxy(s3_server.url)
    keys = s3_server.access_key, s3_server.secret_key
    client = boto3.client("s3", "us-east-1", None, True, None, s3_server.url, *keys)
    if BUCKET not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    client.close()
    for name, value in {**s3_server.environment(), "AWS_ENDPOINT_URL_S3": made.url}.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def place(proxy, tmp_path):
    """A prefix of its own."""
    return f"s3://{BUCKET}/{tmp_path.name}"


def training(place, value=0):
    checkpointer = Checkpointer(place)
    checkpointer.register("values", values := Values())
    values.set(value)
    return checkpointer, values


FAULTS = ["slow down", "error", "reset", "lost answer", 0.3]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("size", [1000, MANY_PARTS])
def test_puts_that_fail_for_a_while_get_through(proxy, place, fault, size):
    """Throttled, refused, cut off, answered late: the object arrives whole, in one request or in many."""
    content = random.Random(0).randbytes(size)
    proxy.fault = first(3, fault, part="key")
    open_storage(place).put("key", [content])

    assert proxy.faults[fault] == (1 if fault == 0.3 and size == 1000 else 3)
    assert open_storage(place).get("key") == content


@pytest.mark.parametrize("fault", [*FAULTS, "cut"])
def test_reads_that_fail_for_a_while_get_through(proxy, place, fault):
    """The same for reading, also when the connection ends in the middle of a range."""
    content = random.Random(0).randbytes(MANY_PARTS)
    storage = open_storage(place)
    storage.put("key", [content])
    proxy.fault = first(3, fault, method="GET", part="key")
    with storage.open("key") as file:
        found = bytearray()
        while piece := file.read(1_000_001):
            found += piece

    assert proxy.faults[fault] == 3
    assert found == content


@pytest.mark.parametrize("fault", FAULTS)
def test_conditional_puts_are_not_fooled_by_their_own_echo(proxy, place, fault):
    """A put whose answer was lost is known by its content: create and put_if succeed once, and refuse others."""
    storage = open_storage(place)
    proxy.fault = first(1, fault, method="PUT")
    storage.create("claim", [b"mine"])
    with pytest.raises(FileExistsError):
        storage.create("claim", [b"another's"])
    seen = []
    proxy.fault = first(1, fault, method="PUT")
    storage.put_if("claim", [b"mine, again"], seen.append)

    assert proxy.faults[fault] == 2
    assert storage.get("claim") == b"mine, again"
    assert seen[0] == b"mine"


def test_put_if_replaces_only_what_it_has_seen(proxy, place):
    """Somebody writes between the look and the put: then there is another look, and nothing is lost unseen."""
    storage, other = open_storage(place), open_storage(place)
    storage.put("key", [b"one"])
    seen = []

    def check(current):
        seen.append(current)
        if len(seen) == 1:
            other.put("key", [b"two"])
        if current == b"two":
            raise PermissionError("two may not be replaced")

    with pytest.raises(PermissionError, match="two may not"):
        storage.put_if("key", [b"three"], check)
    assert seen == [b"one", b"two"]
    assert storage.get("key") == b"two"


def test_an_upload_that_is_killed_shows_nothing(proxy, place):
    """The parts of a large object that never was completed are no object."""

    def pieces():
        yield b"1" * 20_000_000
        yield b"2" * 20_000_000
        raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017, PT011 - obstore wraps it
        open_storage(place).put("cut", pieces())
    assert any("partNumber" in path for _, path, _ in proxy.requests)
    assert open_storage(place).head("cut") is None
    assert open_storage(place).list() == []


def test_a_server_that_goes_and_comes_back(proxy, place, caplog, monkeypatch):
    """Saves fail with one warning and an event each, nothing is raised; soon the save is asked for again."""
    monkeypatch.setattr(writing, "_FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(writing, "_MAX_RETRY_SECONDS", 0.05)
    checkpointer, values = training(place)
    checkpointer.save(1, wait=True)
    proxy.is_down = True
    for step in (2, 3):
        values.set(step)
        checkpointer.save(step, wait=True)
    deadline = time.monotonic() + 30
    while not checkpointer.must_repeat and time.monotonic() < deadline:
        time.sleep(0.01)
    assert checkpointer.must_repeat
    proxy.is_down = False
    checkpointer.save(3, wait=True)
    assert not checkpointer.must_repeat
    checkpointer.close()

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in warnings if "could not be written" in text]) == 1
    assert any("can be written to again, after 2 saves that failed" in text for text in warnings)
    events = read_events(open_storage(place), 0)
    assert [event.step for event in events if isinstance(event, SaveFailed)] == [2, 3]
    assert [event.step for event in events if isinstance(event, CheckpointCommitted)] == [1, 3]
    assert newest_verified(open_storage(place)).step == 3


@pytest.mark.parametrize("part", ["step-", ".state", ".safetensors"])
def test_a_server_that_fails_is_no_damage(proxy, place, part):
    """While the newest checkpoint can't be read, no older one is taken for it: the start fails and may be repeated."""
    checkpointer, values = training(place)
    for step in (1, 2):
        values.set(step)
        checkpointer.save(step, wait=True)
    proxy.fault = lambda method, path: "reset" if method == "GET" and part in path and "list-type" not in path else None
    reader, _ = training(place)
    with pytest.raises(CheckpointUnreadable):
        reader.latest()
    proxy.fault = lambda method, path: None
    assert reader.restore() == 2


def test_a_stalled_upload_is_told_with_its_age(proxy, place, caplog, monkeypatch):
    """Nobody asks for another save, and still a hanging one is told, once at the limit and at each doubling."""
    monkeypatch.setattr(stalling, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(stalling, "_STALLED_FACTOR", 0)
    checkpointer, values = training(place)
    checkpointer.save(1, wait=True)
    proxy.fault = lambda method, path: "hang" if method == "PUT" and "packs/" in path else None
    values.set(2)
    checkpointer.save(2)
    assert not checkpointer.wait(1.5)
    proxy.fault = lambda method, path: None
    proxy.hanging.set()
    checkpointer.close()

    told = [event for event in read_events(open_storage(place), 0) if isinstance(event, SaveStalled)]
    told = [event for event in told if event.step == 2]  # on a busy machine the first takes its time, too
    assert 2 <= len(told) <= 4
    assert [event.seconds for event in told] == sorted(event.seconds for event in told)
    assert "The save of step 2" in caplog.text
    assert "has been under way for 0.2" in caplog.text
    assert newest_verified(open_storage(place)).step == 2


def test_unchanged_packs_are_not_sent_again(proxy, place):
    """Of a state that is mostly frozen, the saves after the first, and those of the next attempt, send the rest."""

    class Frozen(Values):
        def set(self, value):
            super().set(value)
            self.state["big"] = big

    big = torch.rand(2**20)
    checkpointer = Checkpointer(place)
    checkpointer.register("values", values := Frozen())
    values.set(1)
    checkpointer.save(1, wait=True)
    assert proxy.sent_bytes("packs/") > big.nbytes
    proxy.requests.clear()
    values.set(2)
    checkpointer.save(2, wait=True)
    assert 0 < proxy.sent_bytes() < 20_000
    proxy.requests.clear()
    again = Checkpointer(place)
    again.register("values", values)
    assert again.restore() == 2
    values.set(3)
    again.save(3, wait=True)
    assert 0 < proxy.sent_bytes() < 20_000
    verify(again.storage, read_manifest(again.storage, manifest_key(3)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "S3 does not let us into .*AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "can't be reached.*AWS_ENDPOINT_URL_S3"),
        ({"AWS_ENDPOINT_URL_S3": "http://no-such-host.localdomain:9", "AWS_ALLOW_HTTP": "true"}, "can't be reached"),
        ({"bucket": "no-such-bucket"}, "There is no bucket no-such-bucket"),
    ],
)
def test_a_place_that_can_not_work_is_refused_at_once(proxy, place, monkeypatch, change, words):
    """Wrong keys, a wrong endpoint, a missing bucket: told in words before anything is trained."""
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    if "bucket" in change:
        place = place.replace(BUCKET, change["bucket"])
    checkpointer, _ = training(place)
    with pytest.raises(SpecError, match=words) as caught:
        checkpointer.latest()
    assert "wrong" not in str(caught.value).replace("credentials are wrong", "")
    checkpointer, _ = training(place)
    with pytest.raises(SpecError, match=words):
        checkpointer.save(1)
