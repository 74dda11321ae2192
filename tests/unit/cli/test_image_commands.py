"""``image build`` and ``image push`` with an engine that writes down what it is told, and ECR as moto has it."""

import json
import sys
from pathlib import Path

import pytest
from moto import mock_aws

from spotproof.cli import run

ENGINE = f"""#!{sys.executable} -IS
import json, os, sys
words = sys.argv[1:]
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
def note(**more):
    with open(os.path.join(folder, "told"), "a") as file:
        file.write(json.dumps({{"words": words, **more}}) + "\\n")
if words == ["--version"]:
    print("Docker version 28.2.2, build e6534b4")
elif words[0] == "info":
    print("[name=seccomp]")
elif words[:2] == ["image", "inspect"]:
    if not os.path.exists(os.path.join(folder, "built")):
        sys.exit(1)
    print(json.dumps([{{"Id": "sha256:123"}}]))
elif words[0] == "build":
    note(files=sorted(os.listdir(words[-1])))
    if os.path.exists(os.path.join(folder, "broken")):
        sys.exit(3)
    open(os.path.join(folder, "built"), "w").close()
elif words[0] == "login":
    note(stdin=sys.stdin.read())
else:
    note()
"""
JOB = """
name: j
image_uri: {uri}
role: arn:aws:iam::111122223333:role/R
instance_type: ml.m5.large
output_path: s3://bucket/o
inputs: {{training: not-there}}
source_dir: src
entrypoint: [python, train.py]
"""
HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class Desk:
    """A job, an engine of its own, and what that engine has been told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.job = folder, folder / "job.yaml"
        (folder / "src").mkdir()
        (folder / "src/train.py").write_text("")
        (folder / "src/Dockerfile").write_text("FROM scratch\n")
        (folder / "bin").mkdir()
        (folder / "bin/docker").write_text(ENGINE)
        (folder / "bin/docker").chmod(0o755)
        self.set_uri("tutorial:v1")

    def set_uri(self, uri: str) -> None:
        self.job.write_text(JOB.format(uri=uri))

    def told(self) -> list[dict]:
        path = self.folder / "bin/told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    return Desk(tmp_path)


def test_build(desk, capsys):
    """The folder of the job and this Spotproof are what it is built of; inputs need not be there."""
    assert run(["image", "build", str(desk.job), "--build-arg", "BASE=x:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "image_uri": "tutorial:v1",
        "digest": "sha256:123",
        "engine": "docker",
    }
    (told,) = desk.told()
    assert told["words"][:3] == ["build", "--tag", "tutorial:v1"]
    assert "BASE=x:1" in told["words"]
    assert [name.partition("-")[0] for name in told["files"]] == ["Dockerfile", "spotproof", "train.py"]
    assert not Path(told["words"][-1]).exists()


def test_a_failed_build_is_no_traceback(desk, capsys):
    """The engine's own words are on stderr; ours say what failed. The exit code is that of the engine's errors."""
    (desk.folder / "bin/broken").touch()
    assert run(["image", "build", str(desk.job)]) == 6
    assert "tutorial:v1 was not built: Docker 28.2.2 ended with code 3." in capsys.readouterr().err


@mock_aws
def test_push_makes_the_repository_and_logs_in(desk, capsys):
    """A name without a host goes to the ECR registry in use: made, logged in to, tagged, pushed. Again, it is there."""
    assert run(["image", "build", str(desk.job)]) == 0
    capsys.readouterr()
    for is_new in (True, False):
        (desk.folder / "bin/told").unlink()
        assert run(["image", "push", str(desk.job), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {
            "image_uri": f"{HOST}/tutorial:v1",
            "is_new_repository": is_new,
            "engine": "docker",
        }
        login, tag, push = desk.told()
        assert login["words"] == ["login", "--username", "AWS", "--password-stdin", HOST]
        assert login["stdin"]
        assert login["stdin"] not in " ".join(login["words"])
        assert tag["words"] == ["tag", "tutorial:v1", f"{HOST}/tutorial:v1"]
        assert push["words"] == ["push", f"{HOST}/tutorial:v1"]


@mock_aws
def test_push_to_the_registry_that_the_uri_names(desk, capsys):
    """An ECR host says account and region; it needs no other tag."""
    host = HOST.replace("eu-west-1", "us-west-2")
    desk.set_uri(f"{host}/team/tutorial:v2")
    assert run(["image", "build", str(desk.job)]) == 0
    assert run(["image", "push", str(desk.job)]) == 0
    assert [told["words"][0] for told in desk.told()] == ["build", "login", "push"]
    assert desk.told()[-1]["words"] == ["push", f"{host}/team/tutorial:v2"]
    assert f"Pushed {host}/team/tutorial:v2, whose repository is new" in capsys.readouterr().out


@mock_aws
def test_push_elsewhere_is_a_push(desk):
    """Another registry is the engine's own affair."""
    desk.set_uri("registry.example.org/tutorial:v2")
    assert run(["image", "build", str(desk.job)]) == 0
    assert run(["image", "push", str(desk.job)]) == 0
    assert [told["words"] for told in desk.told()[1:]] == [["push", "registry.example.org/tutorial:v2"]]


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (["push"], 6, "There is no image tutorial:v1 to push"),
        (["build", "--build-arg", "x"], 2, "--build-arg 'x' can't be read"),
        (
            ["build", "--engine", "podman"],
            6,
            "The container engine podman can't be used: there is no such command on PATH",
        ),
        (["build", "--engine", "x"], 2, "The container engine 'x' is unknown"),
        (["build", "--file", "nowhere"], 2, "There is no nowhere"),
    ],
)
def test_refusals(desk, capsys, words, exit_code, text):
    """What can't be done is said before anything is told to the engine."""
    assert run(["image", words[0], str(desk.job), *words[1:]]) == exit_code
    assert text in " ".join(capsys.readouterr().err.split())
    assert desk.told() == []


def test_no_engine_at_all(desk, capsys):
    """The words say of each engine why it can't be used."""
    (desk.folder / "bin/docker").unlink()
    assert run(["image", "build", str(desk.job)]) == 6
    assert "No container engine can be used: docker: there is no such command" in " ".join(
        capsys.readouterr().err.split()
    )
