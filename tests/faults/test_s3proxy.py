"""The proxy in front of the S3 server: what passes is what was sent, and a broken connection leaves no object."""

import contextlib
import http.client
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from spotproof.local.http_server import HttpServer
from spotproof.local.s3proxy import Disturbance, S3Proxy
from spotproof.local.s3server import S3Server

KEY = "ordner ä/100 %+~(1).bin"
"""Each of these characters is quoted otherwise by somebody; the signature covers them as they were sent."""


class Door:
    """A proxy with its own port, and what is to happen to the next requests."""

    def __init__(self, server: S3Server) -> None:
        self.coming: list[Disturbance] = []
        self.seen: list[tuple[str, str]] = []
        self._http = HttpServer(0, S3Proxy(server.url, self._disturb))
        self.url = f"http://127.0.0.1:{self._http.port}"
        self._http.start()

    def _disturb(self, method: str, path: str) -> Disturbance | None:
        self.seen.append((method, path))
        return self.coming.pop(0) if self.coming else None

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def door(s3_server: S3Server) -> Iterator[Door]:
    door = Door(s3_server)
    yield door
    door.close()


def client(url: str, server: S3Server, max_attempts: int = 1) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(
            retries={"total_max_attempts": max_attempts, "mode": "standard"}, s3={"addressing_style": "path"}
        ),
    )


@pytest.fixture
def s3(door: Door, s3_server: S3Server) -> Any:
    s3 = client(door.url, s3_server)
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket="proxied")
    return s3


def test_what_passes_is_what_was_sent(s3: Any, door: Door, tmp_path: Any) -> None:
    """Signed keys and metadata, ranges, multipart, conditions, presigned links: as without the proxy."""
    s3.put_object(Bucket="proxied", Key=KEY, Body=b"0123456789", Metadata={"my_key": "v", "a-b": "c"})
    head = s3.head_object(Bucket="proxied", Key=KEY)
    assert (head["ContentLength"], head["Metadata"]) == (10, {"my_key": "v", "a-b": "c"})
    assert s3.get_object(Bucket="proxied", Key=KEY, Range="bytes=3-5")["Body"].read() == b"345"
    s3.put_object(Bucket="proxied", Key="empty", Body=b"")
    assert s3.get_object(Bucket="proxied", Key="empty")["Body"].read() == b""

    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="proxied", Key=KEY, Body=b"other", IfNoneMatch="*")

    data = bytes(range(256)) * (12 * 4096)
    (tmp_path / "large").write_bytes(data)
    s3.upload_file(str(tmp_path / "large"), "proxied", "large", Config=TransferConfig(multipart_threshold=5 << 20))
    s3.download_file("proxied", "large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert ("POST", "/proxied/large") in door.seen

    link = s3.generate_presigned_url("get_object", Params={"Bucket": "proxied", "Key": KEY})
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"0123456789"
    names = [item["Key"] for item in s3.list_objects_v2(Bucket="proxied")["Contents"]]
    assert {"empty", "large", KEY} <= set(names)
    s3.delete_object(Bucket="proxied", Key=KEY)
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="proxied", Key=KEY)


def test_a_wrong_signature_does_not_get_better(s3: Any, door: Door, s3_server: S3Server) -> None:
    """The proxy vouches for nobody."""
    stranger = boto3.client(
        "s3",
        endpoint_url=door.url,
        region_name="us-east-1",
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key="wrong",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.put_object(Bucket="proxied", Key="x", Body=b"x")


def test_a_body_of_unknown_length_passes_whole(door: Door, s3: Any) -> None:
    """Chunked requests, as some clients send them."""
    link = s3.generate_presigned_url("put_object", Params={"Bucket": "proxied", "Key": "chunked"})
    place = urlsplit(link)
    connection = http.client.HTTPConnection(place.netloc)
    connection.request("PUT", f"{place.path}?{place.query}", body=iter([b"ab", b"c" * 300_000]), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert s3.get_object(Bucket="proxied", Key="chunked")["Body"].read() == b"ab" + b"c" * 300_000


def test_errors_and_resets_reach_the_client(s3: Any, door: Door) -> None:
    """An error in the server's place, and a break in an upload or a download."""
    door.coming = [Disturbance(error=(503, "SlowDown"))]
    with pytest.raises(ClientError, match="SlowDown"):
        s3.put_object(Bucket="proxied", Key="k", Body=b"x" * 2_000_000)

    door.coming = [Disturbance(reset_after_bytes=1000)]
    with pytest.raises(HTTPClientError):
        s3.put_object(Bucket="proxied", Key="broken", Body=b"y" * 2_000_000)
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="proxied", Key="broken")

    s3.put_object(Bucket="proxied", Key="whole", Body=b"z" * 2_000_000)
    door.coming = [Disturbance(reset_after_bytes=1000)]
    with pytest.raises(Exception, match=r"IncompleteRead|Connection broken|Read timeout|more expected"):
        s3.get_object(Bucket="proxied", Key="whole")["Body"].read()
    assert len(s3.get_object(Bucket="proxied", Key="whole")["Body"].read()) == 2_000_000


@pytest.mark.parametrize("num_bytes", [0, 1, 300])
def test_a_small_body_that_breaks_leaves_nobody_waiting(s3: Any, door: Door, num_bytes: int) -> None:
    """A body of one piece, cut: the client sees the break at once, and so does the server, which keeps no object."""
    door.coming = [Disturbance(reset_after_bytes=num_bytes)]
    with pytest.raises(HTTPClientError):
        s3.put_object(Bucket="proxied", Key="small", Body=b"y" * 301)
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="proxied", Key="small")

    s3.put_object(Bucket="proxied", Key="small", Body=b"z" * 301)
    door.coming = [Disturbance(reset_after_bytes=num_bytes)]
    with pytest.raises(Exception, match=r"IncompleteRead|Connection|more expected"):
        s3.get_object(Bucket="proxied", Key="small")["Body"].read()
    s3.delete_object(Bucket="proxied", Key="small")


def test_a_client_that_leaves_in_an_upload_leaves_no_object(s3: Any, door: Door) -> None:
    """Half a body never becomes a whole object."""
    link = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": "proxied", "Key": "left"}))
    connection = http.client.HTTPConnection(link.netloc)
    connection.putrequest("PUT", f"{link.path}?{link.query}")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(b"q" * 1000)
    connection.close()

    s3.put_object(Bucket="proxied", Key="after", Body=b"")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="proxied")["Contents"] if item["Key"] == "left"] == []


def test_no_server_behind_it(s3_server: S3Server) -> None:
    """The words of S3 for a server that is not there, which clients repeat."""
    lonely = HttpServer(0, S3Proxy("http://127.0.0.1:9"))
    lonely.start()
    try:
        with pytest.raises(ClientError, match="ServiceUnavailable"):
            client(f"http://127.0.0.1:{lonely.port}", s3_server).list_buckets()
    finally:
        lonely.close()
