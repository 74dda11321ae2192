"""``spotproof checkpoints`` on a prefix of a real S3 server: each command, damage, and what can't work."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch

from spotproof.checkpoint import Checkpointer
from spotproof.cli import run
from spotproof.storage import open_storage

BUCKET = "commands-on-s3"


class Values:
    """Something with state."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


@pytest.fixture
def client(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3's client of the server that the environment leads to, with a bucket."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", "us-east-1")
    if BUCKET not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture
def place(client: Any, tmp_path: Path) -> str:
    """A prefix with the checkpoints of steps 10, 20 and 30; the first is gone by retention."""
    place = f"s3://{BUCKET}/{tmp_path.name}"
    checkpointer = Checkpointer(place)
    checkpointer.register("model", values := Values())
    for step in (10, 20, 30):
        values.state = {"w": torch.full((40,), float(step)), "frozen": torch.ones(9), "step": step}
        checkpointer.save(step, wait=True)
    checkpointer.close()
    return place


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any, str]:
    """Run a command; return its exit code, what --json printed, and the message on stderr in one line."""
    capsys.readouterr()
    code = run(["checkpoints", *argv, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out or "null"), " ".join(err.split())


def damage(client: Any, place: str, key: str, change: Any) -> None:
    """Replace or remove an object around the storage."""
    path = f"{place.removeprefix(f's3://{BUCKET}/')}/{key}"
    if change is None:
        client.delete_object(Bucket=BUCKET, Key=path)
        return
    content = client.get_object(Bucket=BUCKET, Key=path)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=path, Body=change(content))


def test_list_and_verify(capsys: pytest.CaptureFixture[str], place: str) -> None:
    """Both name the steps that are there; of a sound prefix nothing is complained."""
    code, found, _ = answer(capsys, "list", place)
    assert (code, [item["step"] for item in found]) == (0, [30, 20])
    code, found, err = answer(capsys, "verify", place)
    assert (code, [item["is_verified"] for item in found], err) == (0, [True, True], "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "is missing"),
        (lambda content: content[:-1], "bytes of"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "does not match its hash"),
        (lambda content: b"", "0 bytes of"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".state"])
def test_verify_names_the_damaged_file(
    capsys: pytest.CaptureFixture[str], client: Any, place: str, change: Any, words: str, suffix: str
) -> None:
    """Removed, cut, altered or emptied: exit 4, with the file's name; the sound checkpoint is still called so."""
    storage = open_storage(place)
    newest = json.loads(storage.get("step-0000000030.json"))["ranks"][0]
    older = storage.get("step-0000000020.json").decode()
    files = [newest["state"]["file"], *(pack["file"] for pack in newest["packs"])]
    (key,) = [file for file in files if file.endswith(suffix) and file not in older]
    damage(client, place, key, change)

    code, found, err = answer(capsys, "verify", place)
    assert code == 4
    assert [item["is_verified"] for item in found] == [False, True]
    assert key in found[0]["problem"]
    assert words in found[0]["problem"]
    assert f"1 of 2 checkpoints in {place} do not verify. A resume would use step 20." in err
    assert run(["checkpoints", "verify", place]) == 4
    assert key[:20] in capsys.readouterr().out


def test_verify_of_a_damaged_manifest(capsys: pytest.CaptureFixture[str], client: Any, place: str) -> None:
    """A manifest that was cut is named, too."""
    damage(client, place, "step-0000000030.json", lambda content: content[:-5])
    code, found, _ = answer(capsys, "verify", place)
    assert code == 4
    assert "step-0000000030.json is not a whole manifest" in found[0]["problem"]


def test_diff_export_and_import(capsys: pytest.CaptureFixture[str], place: str, tmp_path: Path) -> None:
    """A prefix compares with itself and with a folder, exports to a file, and begins from one."""
    code, result, _ = answer(capsys, "diff", f"{place}@20", place)
    assert code == 7
    assert [d["where"] for d in result["differences"]] == ["step", "model/w"]
    assert run(["checkpoints", "diff", place, f"{place}@30"]) == 0
    code, result, _ = answer(capsys, "export", f"{place}@20", str(tmp_path / "out.ckpt"))
    assert (code, result["step"]) == (0, 20)
    assert torch.equal(torch.load(tmp_path / "out.ckpt", weights_only=True)["model"]["w"], torch.full((40,), 20.0))

    lightning = {"state_dict": {}, "global_step": 5, "epoch": 0, "loops": {}, "optimizer_states": []}
    torch.save({**lightning, "lr_schedulers": []}, tmp_path / "in.ckpt")
    code, result, _ = answer(capsys, "import", str(tmp_path / "in.ckpt"), f"{place}-imported")
    assert (code, result["step"], result["place"]) == (0, 5, f"{place}-imported")
    code, _, err = answer(capsys, "import", str(tmp_path / "in.ckpt"), place)
    assert code == 4
    assert "holds checkpoints already" in err


def test_prune(capsys: pytest.CaptureFixture[str], place: str) -> None:
    """Asks while an attempt may run; then keeps the newest, and removes what nothing names."""
    code, _, err = answer(capsys, "prune", place, "--keep", "1")
    assert code == 4
    assert "--force" in err
    code, plan, _ = answer(capsys, "prune", place, "--keep", "1", "--force", "--dry-run")
    assert (code, plan["removed_steps"]) == (0, [20])
    assert [entry.key for entry in open_storage(place).list("step-")] == [
        "step-0000000020.json",
        "step-0000000030.json",
    ]
    code, done, _ = answer(capsys, "prune", place, "--keep", "1", "--force")
    assert (code, done["kept_steps"], done["freed_bytes"]) == (0, [30], plan["freed_bytes"])
    assert run(["checkpoints", "verify", place]) == 0
    kept = json.loads(open_storage(place).get("step-0000000030.json"))["ranks"][0]
    named = {kept["state"]["file"], *(pack["file"] for pack in kept["packs"])}
    assert {entry.key for entry in open_storage(place).list("packs/")} == named


@pytest.mark.parametrize(
    "command",
    [["list"], ["verify"], ["prune", "--keep", "1"], ["export", "OUT"], ["diff", "PLACE"]],
    ids=lambda command: command[0],
)
def test_a_place_that_can_not_be_read(
    capsys: pytest.CaptureFixture[str], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """A missing bucket, an empty prefix, wrong keys: one message in words, and no traceback."""

    def said(place: str) -> tuple[int, str]:
        rest = [str(tmp_path / "out.ckpt") if word == "OUT" else place if word == "PLACE" else word for word in command]
        code, _, err = answer(capsys, rest[0], place, *rest[1:])
        return code, err

    code, err = said("s3://no-such-bucket/run")
    assert code == 2
    assert "There is no bucket no-such-bucket" in err
    code, err = said(f"s3://{BUCKET}/{tmp_path.name}-empty")
    assert code == 4
    assert "There is no checkpoint in s3://" in err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, err = said(f"s3://{BUCKET}/{tmp_path.name}-empty")
    assert code == 2
    assert "S3 does not let us into" in err
