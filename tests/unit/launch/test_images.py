"""A job's image: where it goes, what an engine is told, and the Spotproof that is put into it."""

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from spotproof._version import __version__
from spotproof.errors import SpecError
from spotproof.launch.images import (
    Repository,
    build_words,
    login_words,
    parse_repository,
    parse_token,
    stage_context,
    write_wheel,
)

ECR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("uri", "repository"),
    [
        ("tutorial", Repository(name="tutorial", tag="latest")),
        ("team/tutorial:v1.2", Repository(name="team/tutorial", tag="v1.2")),
        (f"{ECR}/a/b:x", Repository(name="a/b", tag="x", host=ECR, account="111122223333", region="eu-west-1")),
        ("localhost:5000/a", Repository(name="a", tag="latest", host="localhost:5000")),
        ("registry.example.org/a:1", Repository(name="a", tag="1", host="registry.example.org")),
    ],
)
def test_where_an_image_goes(uri: str, repository: Repository) -> None:
    """A name without a host is for ECR; the parts of an ECR host are account and region."""
    assert parse_repository(uri) == repository
    assert repository.is_ecr == (repository.host in (None, ECR))


@pytest.mark.parametrize("uri", ["Upper/Case", "a b", f"{ECR}/a@sha256:{'0' * 64}", "", "--all", "a:", f"{ECR}/"])
def test_what_can_not_be_pushed_to_is_refused(uri: str) -> None:
    """A name that no registry takes, and a digest, are refused before anything is asked of an engine."""
    with pytest.raises(SpecError, match="can't be pushed to"):
        parse_repository(uri)


def test_a_password_is_no_argument() -> None:
    """ECR's token holds user and password; the password is not on the command line that others can see."""
    token = base64.b64encode(b"AWS:pass:word").decode()
    answer = {"authorizationData": [{"authorizationToken": token, "proxyEndpoint": f"https://{ECR}"}]}
    user, password, host = parse_token(answer)
    assert (user, password, host) == ("AWS", "pass:word", ECR)
    assert login_words(user, host) == ["login", "--username", "AWS", "--password-stdin", ECR]


def test_what_an_engine_is_told_to_build() -> None:
    """Tag, Dockerfile, platform, arguments and the limits that this machine needs; the context comes last."""
    words = build_words(
        image_uri="i:1",
        dockerfile=Path("/c/Dockerfile"),
        context=Path("/c"),
        build_args={"BASE": "a=b"},
        platform="linux/amd64",
        ulimits={"nofile": 10},
    )
    assert words == [
        *("build", "--tag", "i:1", "--file", "/c/Dockerfile", "--platform", "linux/amd64"),
        *("--build-arg", "BASE=a=b", "--ulimit", "nofile=10:10", "/c"),
    ]


def test_the_context_is_the_source_and_a_wheel(tmp_path: Path) -> None:
    """What lies in the folder is there, without what no image holds; the folder itself stays as it was."""
    source = tmp_path / "source"
    (source / ".git").mkdir(parents=True)
    (source / ".git/x").write_text("")
    (source / "train.py").write_text("code")
    (source / "Dockerfile").write_text("of the folder")
    other = tmp_path / "Other"
    other.write_text("another")

    place = stage_context(source, other, tmp_path / "context")

    assert place.read_text() == "another"
    assert (source / "Dockerfile").read_text() == "of the folder"
    names = sorted(path.name for path in (tmp_path / "context").iterdir())
    assert names == ["Dockerfile", f"spotproof-{__version__}-py3-none-any.whl", "train.py"]
    assert sorted(path.name for path in source.iterdir()) == [".git", "Dockerfile", "train.py"]


def test_a_context_without_a_dockerfile_is_refused(tmp_path: Path) -> None:
    """The words name the file that is missing, and one to begin with."""
    with pytest.raises(SpecError, match=r"no .*Dockerfile.*spotproof init"):
        stage_context(tmp_path, tmp_path / "Dockerfile", tmp_path / "context")


def test_the_wheel_can_be_installed(tmp_path: Path) -> None:
    """pip takes it, with its checksums; what it installs runs, and is this version. Made twice it is the same."""
    wheel = write_wheel(tmp_path)
    first = wheel.read_bytes()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(tmp_path / "site"), str(wheel)], check=True)
    code = "import spotproof, spotproof.container.__main__ as m; print(spotproof.__version__, m.__file__)"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [__version__, str(tmp_path / "site/spotproof/container/__main__.py")]
    assert write_wheel(tmp_path).read_bytes() == first
