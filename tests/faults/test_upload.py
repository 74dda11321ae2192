"""Uploads to a real S3 server: parallel, whole objects, and nothing twice."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from spotproof.errors import SpecError
from spotproof.launch import local_files, read_files
from spotproof.launch.upload import upload_files

BUCKET = "uploads"


@pytest.fixture
def client(s3_server: Any) -> Iterator[Any]:
    keys = (s3_server.access_key, s3_server.secret_key)
    client = boto3.client("s3", "us-east-1", None, True, None, s3_server.url, *keys)
    if BUCKET not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Many small files, and one that is sent in parts."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for number in range(30):
        (folder / "sub" / f"{number}.txt").write_text(f"file {number}")
    (folder / "large.bin").write_bytes(os.urandom(20 * 2**20))
    return folder


class Counted:
    """boto3's client, and which objects were written through it."""

    def __init__(self, client: Any) -> None:
        self.put: set[str] = set()
        for event in ("PutObject", "CompleteMultipartUpload"):
            client.meta.events.register(f"provide-client-params.s3.{event}", self._count)

    def _count(self, params: dict[str, Any], **_: Any) -> None:
        self.put.add(params["Key"])


def contents(client: Any, prefix: str) -> dict[str, bytes]:
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {
        entry["Key"].removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        for entry in found
    }


def test_all_files_are_there_and_none_is_sent_twice(client: Any, data: Path, tmp_path: Path) -> None:
    """Byte by byte what the folder holds; again, nothing is sent; after a change, that file alone."""
    uri, told = f"s3://{BUCKET}/{tmp_path.name}", []
    counted = Counted(client)

    first = upload_files(client, read_files(data), uri, on_bytes=told.append)

    expected = {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert contents(client, f"{tmp_path.name}/") == expected
    assert (first.num_uploaded, first.num_present, first.others) == (31, 0, ())
    assert sum(told) == first.uploaded_bytes == sum(map(len, expected.values()))

    counted.put.clear()
    again = upload_files(client, read_files(data), uri)
    assert (again.num_uploaded, again.num_present) == (0, 31)
    assert counted.put == set()

    (data / "sub" / "7.txt").write_text("file !")  # the same size
    changed = upload_files(client, read_files(data), uri)
    assert (changed.num_uploaded, changed.num_present) == (1, 30)
    assert counted.put == {f"{tmp_path.name}/sub/7.txt"}
    assert client.get_object(Bucket=BUCKET, Key=f"{tmp_path.name}/sub/7.txt")["Body"].read() == b"file !"


def test_an_upload_that_was_cut_goes_on(client: Any, data: Path, tmp_path: Path) -> None:
    """What is there whole is left, whatever has written it; what is there in part or otherwise is replaced."""
    key = f"{tmp_path.name}/sub"
    client.put_object(Bucket=BUCKET, Key=f"{key}/1.txt", Body=b"file 1")  # by another program: no checksum of ours
    client.put_object(Bucket=BUCKET, Key=f"{key}/2.txt", Body=b"fil")
    client.put_object(Bucket=BUCKET, Key=f"{key}/3.txt", Body=b"file X")
    client.put_object(Bucket=BUCKET, Key=f"{key}/old.txt", Body=b"of an older version")
    counted = Counted(client)

    result = upload_files(client, read_files(data), f"s3://{BUCKET}/{tmp_path.name}/")

    assert result.num_present == 1
    assert f"{key}/1.txt" not in counted.put
    assert {f"{key}/2.txt", f"{key}/3.txt"} <= counted.put
    assert result.others == ("sub/old.txt",)
    assert contents(client, f"{key}/")["3.txt"] == b"file 3"


def test_a_file_that_changes_meanwhile_is_refused(
    client: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not lie there under the checksum of what it was."""
    files = read_files(data)
    victim = data / "sub" / "5.txt"
    real = local_files.LocalFile.is_unchanged

    def change_first(self: local_files.LocalFile) -> bool:
        if self.path == victim:
            victim.write_text("changed in between")
        return real(self)

    monkeypatch.setattr(local_files.LocalFile, "is_unchanged", change_first)

    with pytest.raises(SpecError, match=r"5\.txt changed while it was uploaded"):
        upload_files(client, files, f"s3://{BUCKET}/{tmp_path.name}")

    assert "sub/5.txt" not in contents(client, f"{tmp_path.name}/")
