"""One suite that every storage passes. It writes and reads around the storage, so that a bug can't hide itself."""

import contextlib
import io
import os
import random
from concurrent.futures import ThreadPoolExecutor

import obstore
import pytest

from spotproof.errors import SpecError
from spotproof.storage import Entry, LocalStorage, open_storage
from spotproof.storage._s3 import S3Storage, split_s3_url

MANY_PARTS = 20_000_000
"""Above what goes up in one request, with a rest."""


class LocalPlace:
    """A directory."""

    def __init__(self, folder):
        self._folder = folder / "root"
        self.storage = open_storage(self._folder)

    def write(self, key, content):
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def read(self, key):
        path = self._folder / key
        return path.read_bytes() if path.is_file() else None


class S3Place:
    """A prefix of its own."""

    def __init__(self, server, monkeypatch):
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        import boto3

        keys = server.access_key, server.secret_key
        client = boto3.client("s3", "us-east-1", None, True, None, server.url, *keys)
        self._bucket = "conformance"
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=self._bucket)
        self.prefix = f"{random.SystemRandom().randrange(10**12)}/fix"
        client.put_object(Bucket=self._bucket, Key=f"{self.prefix}ed/outside", Body=b"another's")
        self._client = client
        self.storage = open_storage(f"s3://{self._bucket}/{self.prefix}")

    def write(self, key, content):
        self._client.put_object(Bucket=self._bucket, Key=f"{self.prefix}/{key}", Body=content)

    def read(self, key):
        try:
            return self._client.get_object(Bucket=self._bucket, Key=f"{self.prefix}/{key}")["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None

    def close(self):
        self._client.close()


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path, monkeypatch):
    """An empty storage, and a way around it."""
    if request.param == "local":
        yield LocalPlace(tmp_path)
        return
    place = S3Place(request.getfixturevalue("s3_server"), monkeypatch)
    yield place
    place.close()


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b""],
        [b"one"],
        [b"one", bytearray(b"two"), memoryview(b"three")],
        [memoryview(os.urandom(800)).cast("d")],
        [b"x" * 1_000_000] * 9,
    ],
)
def test_put_stores_the_concatenation(place, chunks):
    """What is put as chunks of any kind and size is one object."""
    expected = b"".join(bytes(memoryview(chunk).cast("B")) for chunk in chunks)
    place.storage.put("deep/er/key.json", chunks)

    assert place.read("deep/er/key.json") == expected


def test_large_objects_go_both_ways(place):
    """An object of many parts arrives whole, and is read whole."""
    content = random.Random(0).randbytes(MANY_PARTS)
    place.storage.put("large", (content[start : start + 3_000_000] for start in range(0, MANY_PARTS, 3_000_000)))

    assert place.read("large") == content
    assert place.storage.get("large") == content
    assert place.storage.head("large") == Entry("large", MANY_PARTS)


def test_put_replaces_as_a_whole(place):
    """A second put replaces the first, also by a shorter object."""
    place.storage.put("key", [b"a long first content"])
    place.storage.put("key", [b"short"])

    assert place.read("key") == b"short"


def test_create_never_replaces(place):
    """The first of several who create an object makes it; the others are told, and change nothing."""
    place.storage.create("deep/key", [b"fi", b"rst"])
    with pytest.raises(FileExistsError):
        place.storage.create("deep/key", [b"second"])
    assert place.read("deep/key") == b"first"
    assert [entry.key for entry in place.storage.list()] == ["deep/key"]


def test_of_many_who_create_at_once_one_succeeds(place):
    """Eight threads, one object: one of them has made it."""

    def create(number):
        try:
            open_storage(place.storage.url).create("key", [b"%d" % number])
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        made = [number for number in pool.map(create, range(8)) if number is not None]
    assert len(made) == 1
    assert place.read("key") == b"%d" % made[0]


def test_put_if_is_shown_what_it_replaces(place):
    """It sees nothing, then the object; what it raises comes out, and the object stays."""
    seen = []
    place.storage.put_if("key", [b"one"], seen.append)
    place.storage.put_if("key", [b"t", b"wo"], seen.append)
    assert seen == [None, b"one"]

    def refuse(current):
        raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        place.storage.put_if("key", [b"three"], refuse)
    assert place.read("key") == b"two"
    assert [entry.key for entry in place.storage.list()] == ["key"]


def test_a_sweep_makes_the_put_fail_that_was_staged(tmp_path):
    """Who looked before the sweep, and writes after it, writes nothing: that is what a directory's put_if rests on."""
    older, newer = open_storage(tmp_path), open_storage(tmp_path)
    older.put("key", [b"before"])
    with pytest.raises(FileNotFoundError):
        older.put_if("key", [b"older"], lambda _: newer.sweep())
    assert newer.get("key") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("size", [10, MANY_PARTS])
def test_a_put_that_fails_midway_changes_nothing(place, size):
    """If the chunks end in an error, what was there before is still there, whole."""

    def chunks():
        for _ in range(size // 5):
            yield b"12345" if size < 100 else b"1" * 5_000_000
            if size >= 100:
                yield b"2" * 5_000_000
                break
        raise OSError("the source failed")

    place.write("key", b"before")
    with pytest.raises(OSError, match="the source failed"):
        place.storage.put("key", chunks())
    with pytest.raises(OSError, match="the source failed"):
        place.storage.put("new", chunks())

    assert place.read("key") == b"before"
    assert place.storage.head("new") is None
    assert [entry.key for entry in place.storage.list()] == ["key"]


def test_what_is_not_there_is_told(place):
    """get raises FileNotFoundError, head returns None, delete does nothing, list is empty."""
    with pytest.raises(FileNotFoundError):
        place.storage.get("nothing")
    assert place.storage.head("nothing") is None
    place.storage.delete("nothing")
    assert place.storage.list() == []
    assert place.storage.list("nothing/") == []


def test_list_is_sorted_and_by_prefix_of_characters(place):
    """list returns keys and sizes, sorted; the prefix need not end at a slash; keys next door are not listed."""
    for key in ("b", "a/2", "a/10", "ab/1", "a.json"):
        place.write(key, key.encode())

    assert place.storage.list() == [Entry(key, len(key)) for key in ("a.json", "a/10", "a/2", "ab/1", "b")]
    assert [entry.key for entry in place.storage.list("a/")] == ["a/10", "a/2"]
    assert [entry.key for entry in place.storage.list("a")] == ["a.json", "a/10", "a/2", "ab/1"]
    assert [entry.key for entry in place.storage.list("a/1")] == ["a/10"]


def test_delete_removes_one(place):
    """delete removes that object and no other."""
    for key in ("a", "ab", "a.json"):
        place.write(key, b"x")
    place.storage.delete("a")

    assert [entry.key for entry in place.storage.list()] == ["a.json", "ab"]
    assert place.read("a") is None


@pytest.mark.parametrize(
    "key", ["with space", "plus+sign", "per%20cent", "ümläut", "quote'\"", ".hidden", "a=b&c", "~"]
)
def test_keys_are_taken_as_they_are(place, key):
    """Characters that URLs or shells treat specially are kept."""
    place.storage.put(f"d/{key}", [b"x"])

    assert place.read(f"d/{key}") == b"x"
    assert [entry.key for entry in place.storage.list()] == [f"d/{key}"]
    assert place.storage.get(f"d/{key}") == b"x"


@pytest.mark.parametrize("key", ["", "/absolute", "../out", "a/../../out", "a\\b", "nul\0"])
@pytest.mark.parametrize("verb", ["put", "get", "head", "delete"])
def test_keys_stay_inside(place, key, verb):
    """No verb follows a key out of its storage."""
    arguments = ([b"x"],) if verb == "put" else ()
    with pytest.raises(ValueError, match="does not stay inside"):
        getattr(place.storage, verb)(key, *arguments)


def test_put_file_can_be_abandoned(s3_server, monkeypatch):
    """An upload that is abandoned in the middle leaves no object and no visible part."""
    place = S3Place(s3_server, monkeypatch)
    asked = []

    def is_abandoned():
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(InterruptedError):
        place.storage.put_file("cut", io.BytesIO(b"x" * MANY_PARTS), is_abandoned=is_abandoned)

    assert place.read("cut") is None
    assert place.storage.list() == []
    place.close()


def test_stream_is_the_object_in_pieces(s3_server, monkeypatch):
    """stream yields what get returns, piece by piece; a missing object raises as get does."""
    place = S3Place(s3_server, monkeypatch)
    content = random.Random(1).randbytes(MANY_PARTS)
    place.write("large", content)

    pieces = list(place.storage.stream("large"))
    assert b"".join(pieces) == content
    assert len(pieces) > 1
    with pytest.raises(FileNotFoundError):
        list(place.storage.stream("nothing"))
    place.close()


def test_s3_errors_are_told_in_builtin_words(s3_server, monkeypatch):
    """Wrong keys, a missing bucket, a dead endpoint: PermissionError, FileNotFoundError, OSError, and no secrets."""
    place = S3Place(s3_server, monkeypatch)
    place.close()
    good = {**s3_server.environment()}
    with pytest.raises(FileNotFoundError, match="no bucket nowhere"):
        S3Storage("nowhere", environment=good).put("key", [b"x"])
    with pytest.raises(FileNotFoundError, match="no bucket nowhere"):
        S3Storage("nowhere", environment=good).list()
    with pytest.raises(FileNotFoundError, match="no bucket nowhere"):
        S3Storage("nowhere", environment=good).check_bucket()
    wrong = {**good, "AWS_SECRET_ACCESS_KEY": "wrong-secret"}
    with pytest.raises(PermissionError) as caught:
        S3Storage(place.storage.bucket, environment=wrong).get("key")
    assert "wrong-secret" not in str(caught.value)
    dead = {**good, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    with pytest.raises(OSError, match="S3 failed at s3://bucket/key"):
        S3Storage("bucket", environment=dead).get("key")


def test_what_is_given_beats_the_process_environment(s3_server, monkeypatch):
    """A storage over given settings takes neither endpoint nor keys nor token of the process's own environment."""
    place = S3Place(s3_server, monkeypatch)
    place.write("key", b"x")
    given = s3_server.environment()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a session with another cloud")

    assert S3Storage(place.storage.bucket, place.prefix, environment=given).get("key") == b"x"
    place.close()


def test_plain_http_is_for_loopback_only():
    """Credentials do not cross a network in the clear unless the user says so."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(SpecError, match="plain http"):
        S3Storage("bucket", environment={**keys, "AWS_ENDPOINT_URL": "http://10.0.0.1:80"})
    S3Storage("bucket", environment={**keys, "AWS_ENDPOINT_URL": "http://10.0.0.1:80", "AWS_ALLOW_HTTP": "true"})
    S3Storage("bucket", environment={**keys, "AWS_ENDPOINT_URL": "http://localhost:80"})
    S3Storage("bucket", environment={**keys, "AWS_ENDPOINT_URL": "https://10.0.0.1"})


@pytest.mark.parametrize("url", ["", "bucket/key", "https://bucket/key", "s3://", "s3:///key"])
def test_what_is_no_s3_url_is_refused(url):
    """Only s3://bucket/prefix names a place in S3."""
    with pytest.raises(SpecError, match="s3://bucket/prefix"):
        split_s3_url(url)
    assert split_s3_url("s3://bucket/a/b") == ("bucket", "a/b")
    assert split_s3_url("s3://bucket") == ("bucket", "")


def test_open_storage_chooses_by_the_name(tmp_path, monkeypatch):
    """A directory's name opens a directory, s3:// opens S3; obstore comes only with S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert isinstance(open_storage(tmp_path), LocalStorage)
    storage = open_storage("s3://bucket/prefix/")
    assert storage.url == "s3://bucket/prefix"
    assert isinstance(storage, S3Storage)
    assert isinstance(storage._store, obstore.store.S3Store)
