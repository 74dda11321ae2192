"""``spotproof checkpoints``: what each command says, writes, removes and exits with."""

import builtins
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch

from checkpoint_maker import checkpoint
from spotproof.checkpoint import Checkpointer, newest_verified
from spotproof.checkpoint import choose as choosing
from spotproof.cli import run
from spotproof.events import AttemptEnded, AttemptStarted, Event, event_file, to_line
from spotproof.storage import LocalStorage, open_storage


class Values:
    """Something with state."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def save(folder: Path, *states: dict[str, Any]) -> None:
    """Save *states* of a model as steps 10, 20, …"""
    checkpointer = Checkpointer(folder)
    checkpointer.register("model", values := Values({}))
    for number, state in enumerate(states, start=1):
        values.state = state
        checkpointer.save(10 * number, wait=True)


def lightning_state(**more: Any) -> dict[str, Any]:
    """Return what Lightning would save, cut down."""
    return {
        "state_dict": {"w": torch.arange(4.0)},
        "global_step": 12,
        "epoch": 1,
        "loops": {"fit_loop": {"state_dict": {"combined_loader": [{"consumed": 3}]}}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        **more,
    }


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    """Run a command with --json; return its exit code and what it printed."""
    code = run(["checkpoints", *argv, "--json"])
    return code, json.loads(capsys.readouterr().out or "null")


def test_diff_of_equal_checkpoints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The same bytes are identical, exit 0, and it is said what was compared."""
    state = {"w": torch.arange(6.0), "b": torch.ones(2), "step": 3}
    save(tmp_path / "a", state)
    save(tmp_path / "b", {name: value.clone() if name != "step" else value for name, value in state.items()})

    assert run(["checkpoints", "diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Identical, bit for bit: step 10, 2 tensors (weights, optimizer")
    code, result = answer(capsys, "diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert (code, result["is_identical"], result["differences"]) == (0, True, [])


def test_diff_names_the_first_tensor_and_with_all_every_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A difference exits 7 and is named by its place in the state; plain values count, too."""
    save(tmp_path / "a", {"same": torch.ones(3), "w": torch.zeros(2), "b": torch.zeros(2), "lr": 0.1})
    save(tmp_path / "b", {"same": torch.ones(3), "w": torch.ones(2), "b": torch.zeros(3), "lr": 0.2})
    places = [str(tmp_path / "a"), str(tmp_path / "b")]

    assert run(["checkpoints", "diff", *places]) == 7
    out, err = capsys.readouterr()
    assert "model/w" in out
    assert "model/b" not in out
    assert "differ, first at model/w." in err
    code, result = answer(capsys, "diff", *places, "--all")
    assert code == 7
    assert [d["where"] for d in result["differences"]] == ["model/w", "model/b", "model/lr"]


def test_diff_of_steps_of_one_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """PLACE@STEP picks a checkpoint; that the steps differ does not hide the first tensor that does."""
    save(tmp_path, {"w": torch.zeros(2)}, {"w": torch.ones(2)})

    code, result = answer(capsys, "diff", f"{tmp_path}@10", str(tmp_path))
    assert code == 7
    assert [d["where"] for d in result["differences"]] == ["step", "model/w"]
    assert (result["a"]["step"], result["b"]["step"]) == (10, 20)
    assert run(["checkpoints", "diff", f"{tmp_path}@10", f"{tmp_path}@10"]) == 0
    assert run(["checkpoints", "diff", f"{tmp_path}@15", str(tmp_path)]) == 4
    assert "There are those of 20, 10." in capsys.readouterr().err


def test_diff_does_not_call_damaged_bytes_identical(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Equal manifests over other bytes are damage, exit 4."""
    save(tmp_path / "a", {"w": torch.zeros(2)})
    save(tmp_path / "b", {"w": torch.zeros(2)})
    (pack,) = (tmp_path / "b" / "packs").glob("*.safetensors")
    pack.write_bytes(pack.read_bytes()[:-1] + b"\1")

    assert run(["checkpoints", "diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 4
    assert run(["checkpoints", "diff", str(tmp_path / "a"), f"{tmp_path / 'b'}@10"]) == 4
    assert "does not match its hash" in capsys.readouterr().err


def test_verify_reads_a_shared_pack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What several checkpoints hold in common is read once, and its damage is found in each."""
    save(tmp_path, *({"big": torch.ones(600_000), "moving": torch.full((4,), float(n))} for n in range(2)))
    read: list[str] = []
    original = choosing.read_pack
    monkeypatch.setattr(choosing, "read_pack", lambda storage, file: (read.append(file.key), original(storage, file)))

    assert run(["checkpoints", "verify", str(tmp_path)]) == 0
    assert len(read) == len(set(read)) == 2

    shared = max((tmp_path / "packs").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    shared.write_bytes(shared.read_bytes()[:-1] + b"\1")
    storage = LocalStorage(tmp_path)
    assert newest_verified(storage) is None
    assert run(["checkpoints", "verify", str(tmp_path)]) == 4


def test_export_of_a_raw_state(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """States that were registered one by one come out as a dict of them, readable with weights_only."""
    save(tmp_path / "run", {"w": torch.arange(3.0)}, {"w": torch.ones(3)})
    target = tmp_path / "out.ckpt"

    code, result = answer(capsys, "export", str(tmp_path / "run"), str(target), "--step", "10")
    assert (code, result["step"], result["is_lightning"], result["loads_with_weights_only"]) == (0, 10, False, True)
    assert torch.equal(torch.load(target, weights_only=True)["model"]["w"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.ckpt"]


def test_export_never_overwrites_unless_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file that is there stays as it is; --force replaces it."""
    save(tmp_path / "run", {"w": torch.arange(3.0)})
    target = tmp_path / "out.ckpt"
    target.write_text("mine")

    assert run(["checkpoints", "export", str(tmp_path / "run"), str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert run(["checkpoints", "export", str(tmp_path / "run"), str(target), "--force"]) == 0
    assert "model" in torch.load(target, weights_only=True)


def test_export_leaves_out_what_only_spotproof_reads(tmp_path: Path) -> None:
    """Of a Lightning training, the file holds what Lightning wrote, without our parts and positions."""
    checkpointer = Checkpointer(tmp_path / "run")
    checkpointer.register("lightning", Values(lightning_state(spotproof={"between": "batches"})))
    checkpointer.save(12, wait=True)
    target = tmp_path / "out.ckpt"

    assert run(["checkpoints", "export", str(tmp_path / "run"), str(target)]) == 0
    exported = torch.load(target, weights_only=True)
    assert exported.keys() == lightning_state().keys()
    assert exported["loops"] == {"fit_loop": {"state_dict": {}}}


def test_without_torch_the_others_still_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where torch can't be imported, export says how to get it, and nothing else needs it."""
    checkpoint(tmp_path / "run", 3, b"bytes")
    plain_import = builtins.__import__

    def without_torch(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "torch":
            raise ImportError("No module named 'torch'")
        return plain_import(name, *args, **kwargs)

    import sys

    monkeypatch.setattr(builtins, "__import__", without_torch)
    for name in [name for name in sys.modules if name.startswith("spotproof.checkpoint.")]:
        monkeypatch.delitem(sys.modules, name)
    for argv in (["list"], ["verify"], ["prune", "--keep", "1"]):
        assert run(["checkpoints", *argv, str(tmp_path / "run")]) == 0
    assert run(["checkpoints", "diff", str(tmp_path / "run"), str(tmp_path / "run")]) == 0
    assert run(["checkpoints", "export", str(tmp_path / "run"), str(tmp_path / "out.ckpt")]) == 1
    assert "pip install 'spotproof[train]'" in capsys.readouterr().err


def test_import_begins_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The folder holds the file's checkpoint at its step; a second import is refused."""
    torch.save(lightning_state(), tmp_path / "in.ckpt")

    code, result = answer(capsys, "import", str(tmp_path / "in.ckpt"), str(tmp_path / "run"))
    assert (code, result["step"]) == (0, 12)
    found = newest_verified(LocalStorage(tmp_path / "run"))
    assert found is not None
    assert found.step == 12
    assert run(["checkpoints", "import", str(tmp_path / "in.ckpt"), str(tmp_path / "run")]) == 4
    assert "holds checkpoints already" in capsys.readouterr().err


class Opaque:
    """What only unpickling could make."""

    def __reduce__(self) -> Any:
        return (open, (str(Path("/nonexistent/proof-that-code-ran")), "w"))


def test_import_runs_no_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file that needs unpickling is refused, naming what it holds and the remedy; nothing is made."""
    torch.save(lightning_state(hyper_parameters={"criterion": Opaque()}), tmp_path / "in.ckpt")

    assert run(["checkpoints", "import", str(tmp_path / "in.ckpt"), str(tmp_path / "run")]) == 4
    err = " ".join(capsys.readouterr().err.split())
    assert "holds io.open, which only unpickling could read" in err
    assert "weights_only=False" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no file of torch", "can't be read as a file of torch.save. It is cut short, or something else. →"),
        (b"", "can't be read as a file of torch.save. It is cut short, or something else. →"),
        ({"state_dict": {}}, "Only weights were saved"),
        ({"model": 1}, "written by something else"),
        ([1], "holds a list"),
    ],
)
def test_import_of_other_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: object, words: str) -> None:
    """What is no Lightning training is refused with exit 2, in words."""
    source = tmp_path / "in.ckpt"
    if isinstance(content, bytes):
        source.write_bytes(content)
    else:
        torch.save(content, source)

    assert run(["checkpoints", "import", str(source), str(tmp_path / "run")]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_cut_file_is_not_imported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Half a .ckpt, as an interrupted copy leaves it, is refused in words; so is a missing one."""
    source = tmp_path / "in.ckpt"
    torch.save(lightning_state(), source)
    source.write_bytes(source.read_bytes()[:-200])

    assert run(["checkpoints", "import", str(source), str(tmp_path / "run")]) == 2
    assert run(["checkpoints", "import", str(tmp_path / "none"), str(tmp_path / "run")]) == 4
    assert "Traceback" not in capsys.readouterr().err


def test_prune_keeps_the_newest_that_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The newest is damaged, so the one before it is what stays; bytes are counted; a dry run touches nothing."""
    for step in (1, 2, 3):
        checkpoint(tmp_path, step, bytes([step]) * 1000)
    (tmp_path / "step-0000000003.json").write_text("{}")
    before = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}

    code, plan = answer(capsys, "prune", str(tmp_path), "--keep", "1", "--dry-run")
    assert (code, plan["kept_steps"], plan["removed_steps"], plan["damaged_steps"]) == (0, [2], [3, 1], [3])
    assert {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()} == before

    code, done = answer(capsys, "prune", str(tmp_path), "--keep", "1")
    assert code == 0
    after = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert sum(before.values()) - sum(after.values()) == done["freed_bytes"] == plan["freed_bytes"]
    found = newest_verified(LocalStorage(tmp_path))
    assert found is not None
    assert found.step == 2
    assert len(list((tmp_path / "packs").iterdir())) == 2


def test_prune_removes_nothing_if_nothing_verifies(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With only damaged checkpoints, and with an unreadable one, all files stay."""
    checkpoint(tmp_path, 1, b"bytes")
    (pack,) = (tmp_path / "packs").glob("*.safetensors")
    content = pack.read_bytes()
    pack.write_bytes(content[:-1])
    assert run(["checkpoints", "prune", str(tmp_path), "--keep", "1"]) == 4
    assert "none was removed" in capsys.readouterr().err
    assert pack.exists()


def test_a_file_that_can_not_be_read_now_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk or the network is no proof of damage: the prune ends without removing anything."""
    for step in (1, 2):
        checkpoint(tmp_path, step, bytes([step]) * 10)
    original = LocalStorage.get

    def failing(self: LocalStorage, key: str) -> bytes:
        if key == "step-0000000002.json":
            raise OSError(5, "Input/output error")
        return original(self, key)

    monkeypatch.setattr(LocalStorage, "get", failing)
    assert run(["checkpoints", "prune", str(tmp_path), "--keep", "1"]) == 1
    monkeypatch.undo()
    assert [entry.key for entry in LocalStorage(tmp_path).list("step-")] == [
        "step-0000000001.json",
        "step-0000000002.json",
    ]


def journal(folder: Path, *events: Event) -> None:
    """Write the events of attempt 0."""
    LocalStorage(folder).put(event_file(0), [to_line(event).encode() for event in events])


def test_prune_asks_while_an_attempt_may_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Young events without an end refuse, --force and an end do not, nor do old ones."""
    for step in (1, 2):
        checkpoint(tmp_path, step, bytes([step]) * 10)
    now = datetime.now(timezone.utc)
    started = AttemptStarted(attempt=0, run_id="r", config={}, versions={}, at=now)
    argv = ["checkpoints", "prune", str(tmp_path), "--keep", "1", "--dry-run"]

    journal(tmp_path, started)
    assert run(argv) == 4
    assert "--force" in capsys.readouterr().err
    assert run([*argv, "--force"]) == 0
    journal(tmp_path, started, AttemptEnded(attempt=0, outcome="finished", step=2, at=now))
    assert run(argv) == 0
    journal(tmp_path, AttemptStarted(attempt=0, run_id="r", config={}, versions={}, at=now - timedelta(hours=2)))
    assert run(argv) == 0


def test_all_commands_on_s3(
    s3_server: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """list, verify, diff, export, import and prune take s3:// places."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    place = f"s3://commands-{tmp_path.name.replace('_', '-')}/run"
    boto3.client("s3").create_bucket(Bucket=place.split("/")[2])
    torch.save(lightning_state(), tmp_path / "in.ckpt")

    assert run(["checkpoints", "import", str(tmp_path / "in.ckpt"), place]) == 0
    checkpointer = Checkpointer(place)
    checkpointer.register("lightning", Values(lightning_state(global_step=20)))
    checkpointer.save(20, wait=True)
    assert run(["checkpoints", "list", place]) == 0
    assert run(["checkpoints", "verify", place]) == 0
    assert run(["checkpoints", "diff", f"{place}@12", f"{place}@12"]) == 0
    assert run(["checkpoints", "diff", f"{place}@12", place]) == 7
    assert run(["checkpoints", "export", f"{place}@12", str(tmp_path / "out.ckpt")]) == 0
    assert torch.load(tmp_path / "out.ckpt", weights_only=True)["global_step"] == 12
    code, _ = answer_after_clearing(capsys, "prune", place, "--keep", "1")
    assert code == 4
    code, done = answer(capsys, "prune", place, "--keep", "1", "--force")
    assert (code, done["kept_steps"]) == (0, [20])
    assert [entry.key for entry in open_storage(place).list("step-")] == ["step-0000000020.json"]


def answer_after_clearing(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    """As :func:`answer`, when something was printed before."""
    capsys.readouterr()
    return answer(capsys, *argv)


@pytest.mark.parametrize("words", [["list"], ["verify"], ["prune", "--keep", "1"], ["export", "out.ckpt"], ["diff"]])
def test_what_is_no_place_of_checkpoints_is_named(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that is not there, Lightning's own file, and a folder of something else are three mistakes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"x")
    (tmp_path / "logs").mkdir()
    command, *more = words
    for place, told in (
        ("nowhere", "There is no folder"),
        ("last.ckpt", "is a file. Spotproof's checkpoints are a folder"),
        ("logs", "None of its files is a manifest"),
    ):
        places = [place, place] if command == "diff" else [place]
        assert run(["checkpoints", command, *places, *more]) == 4
        assert told in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "logs"]


def test_export_and_import_name_what_is_in_the_way(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A folder that is not there or stands for a file, and two steps at once, are refused in words, exit 2."""
    checkpoint(tmp_path / "run", 5, b"weights")
    run_, export = str(tmp_path / "run"), ["checkpoints", "export"]
    for words, told in (
        ([*export, run_, str(tmp_path / "no" / "out.ckpt")], "There is no folder"),
        ([*export, run_, str(tmp_path)], "It is a folder."),
        ([*export, f"{run_}@5", "out.ckpt", "--step", "7"], "are two checkpoints"),
        (["checkpoints", "import", run_, str(tmp_path / "new")], "is a folder"),
    ):
        assert run(words) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()
