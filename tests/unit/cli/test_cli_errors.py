"""The command line's own behaviour: exit codes, words, no tracebacks, quick start."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from checkpoint_maker import checkpoint
from spotproof import SpecError, __version__
from spotproof.cli import run
from spotproof.cli.console import show_error
from spotproof.cli.locate import find_local_server, use_local_server


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No local server and no endpoint is known."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Help lists every command; the version is the package's."""
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    commands = ["demo", "rehearse", "plan", "serve", "reclaim", "faults", "launch", "list", "logs", "stop", "report"]
    for command in [*commands, "checkpoints"]:
        assert f"  {command} " in text
    assert "..." not in text.partition("Commands:")[2]

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"spotproof {__version__}\n"


def test_starting_loads_nothing_heavy() -> None:
    """--help is quick because boto3, rich tables, obstore and torch are loaded by those who use them."""
    code = (
        "import sys; from spotproof.cli import run; run(['--help']); "
        "print([name for name in ('boto3', 'botocore', 'obstore', 'torch', 'yaml') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.splitlines()[-1] == "[]"


def test_wrong_use_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command or option is a usage error."""
    assert run(["nope"]) == 2
    assert run(["list", "--nope"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_spec_error_is_shown_with_its_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A missing job.yaml is one message on stderr and exit 2, with nothing on stdout."""
    assert run(["rehearse", str(tmp_path / "none.yaml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: There is no file" in err
    assert "→ Give the path of a job.yaml" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SPOTPROOF_DEBUG=1 lets the error through."""
    monkeypatch.setenv("SPOTPROOF_DEBUG", "1")
    with pytest.raises(SpecError):
        run(["rehearse", str(tmp_path / "none.yaml")])


@pytest.mark.parametrize("command", [["list"], ["logs", "j"], ["stop", "j"], ["report", "j"], ["reclaim", "j"]])
def test_no_server_is_said_clearly(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a local server the commands say so, what they looked for, and how to start one."""
    assert run(command) == 6
    err = capsys.readouterr().err
    assert "No local SageMaker is running" in err
    assert "spotproof serve" in err


def test_the_demo_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is found from anywhere, and is a job that can be rehearsed."""
    from spotproof.cli.rehearse import DEMO_JOB
    from spotproof.rehearsal import check_rehearsable
    from spotproof.spec import read_job_spec

    monkeypatch.chdir(tmp_path)
    image = check_rehearsable(read_job_spec(DEMO_JOB))

    assert image.command == ["python", "-m", "spotproof.container", "train.py"]


@pytest.mark.slow
def test_a_wheel_has_all_that_is_no_code(tmp_path: Path) -> None:
    """The demo's example, the recorded traces with their licences, and the mark that we are typed."""
    checkout, source = Path(__file__).parents[3], tmp_path / "source"
    for name in ("src", "examples"):
        shutil.copytree(checkout / name, source / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(source)], check=True)
    names = set(ZipFile(next(tmp_path.glob("*.whl"))).namelist())

    package = checkout / "src/spotproof"
    traces = (package / "schedule/traces").rglob("*")
    wanted = [package / "py.typed", *(package / "example").iterdir(), *traces]
    assert len(wanted) > 12
    assert {str(path.relative_to(package.parent)) for path in wanted if path.is_file()} <= names


@pytest.fixture
def same_handlers() -> Iterator[None]:
    """``serve`` takes the signals of its process, which here is that of all tests."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("same_handlers")
@pytest.mark.parametrize("place", ["/proc/nowhere", "file/below"])
def test_a_state_folder_that_can_not_be(
    place: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that can't be made gets words and a remedy, not an errno alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()

    assert run(["serve", "--state-dir", place]) == 6
    err = " ".join(capsys.readouterr().err.split())
    assert f"{place}:" in err
    assert "can't keep its state in" in err
    assert "--state-dir FOLDER" in err


def test_a_port_in_use_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """In our words alone."""
    from spotproof.errors import EngineError
    from spotproof.local.http_server import HttpServer

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EngineError, match=f"Port {port} on 127.0.0.1 can't be used: Address already in use"):
            HttpServer(port, lambda environ, start: [])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("written", "seconds"), [("60", 60.0), ("90s", 90.0), ("2m", 120.0), ("0", 0.0), ("1.5", 1.5), ("250ms", 0.25)]
)
def test_reclaim_takes_seconds_and_durations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], written: str, seconds: float
) -> None:
    """As schedules write a grace, and as they write anything else."""
    asked: dict[str, object] = {}

    def ask_controls(door: str, fields: dict[str, object], **place: object) -> dict[str, object]:
        asked.update(fields)
        return {}

    monkeypatch.setattr("spotproof.cli.locate.ask_controls", ask_controls)
    assert run(["reclaim", "a-job", "--grace", written, "--away", written]) == 0
    assert (asked["GraceSeconds"], asked["AwaySeconds"]) == (seconds, seconds)


@pytest.mark.parametrize("written", ["2x", "-3", "", "s", "1e3", "nan"])
def test_reclaim_refuses_what_is_no_duration(capsys: pytest.CaptureFixture[str], written: str) -> None:
    """Before anything is asked."""
    assert run(["reclaim", "a-job", f"--away={written}"]) == 2
    assert f"--away {written} is no duration" in capsys.readouterr().err


def test_reclaim_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    """An endpoint where nobody answers as the local SageMaker gets words, not a traceback."""
    assert run(["reclaim", "j", "--endpoint", "http://127.0.0.1:9"]) == 6
    assert "does not answer as a local SageMaker" in capsys.readouterr().err


def test_checkpoints_of_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An empty place has no checkpoint: exit 4."""
    assert run(["checkpoints", "list", str(tmp_path)]) == 4
    assert "There is no checkpoint" in capsys.readouterr().err


def test_checkpoints_list_and_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """list shows what is committed; verify finds the damaged one, exits 4 and says what a resume would use."""
    checkpoint(tmp_path, 5, b"older")
    assert run(["checkpoints", "verify", str(tmp_path)]) == 0
    assert "verified" in capsys.readouterr().out

    checkpoint(tmp_path, 9, b"newer")
    manifest = json.loads((tmp_path / "step-0000000009.json").read_text())
    pack = tmp_path / manifest["ranks"][0]["packs"][0]["file"]
    pack.write_bytes(pack.read_bytes()[:-1])

    assert run(["checkpoints", "list", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(item["step"], item["is_verified"], item["problem"]) for item in listed] == [
        (9, None, None),
        (5, None, None),
    ]

    assert run(["checkpoints", "verify", str(tmp_path), "--json"]) == 4
    out, err = capsys.readouterr()
    assert [(item["step"], item["is_verified"]) for item in json.loads(out)] == [(9, False), (5, True)]
    assert "A resume would use step 5." in err


def test_running_server_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    """server.json counts only while its process lives."""
    state = tmp_path / "s"
    state.mkdir()
    known: dict[str, object] = {"pid": os.getpid(), "url": "http://127.0.0.1:1", "s3_url": "http://127.0.0.1:2"}
    known["environment"] = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2"}
    (state / "server.json").write_text(json.dumps(known))
    found = find_local_server(state)
    assert found is not None
    assert found.environment["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:2"

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (state / "server.json").write_text(json.dumps({**known, "pid": gone.pid}))
    assert find_local_server(state) is None

    (state / "server.json").write_text("{")
    assert find_local_server(state) is None


def test_own_endpoint_beats_the_local_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment names is used, whatever runs here."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", "http://127.0.0.1:3")

    assert use_local_server(tmp_path) is False


def test_missing_extra_is_named(tmp_path: Path) -> None:
    """Without the extra that a command needs it says which, with exit 1 and no traceback."""
    code = "import sys; sys.modules['werkzeug'] = None; from spotproof.cli import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", "--state-dir", str(tmp_path / "s")]
    result = subprocess.run(command, capture_output=True, text=True)

    assert result.returncode == 1
    assert "needs werkzeug, which is not installed" in result.stderr
    assert "pip install 'spotproof[local]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_module_that_no_extra_brings_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is missing by our own mistake is not blamed on the user's installation."""
    monkeypatch.setitem(sys.modules, "spotproof.schedule", None)
    with pytest.raises(ModuleNotFoundError):
        run(["traces"])


def test_every_optional_module_has_its_extra() -> None:
    """The names in the messages are extras of pyproject.toml, and what they bring is in them."""
    from importlib.metadata import metadata

    from spotproof.cli.extras import _EXTRA_OF

    required = metadata("spotproof").get_all("Requires-Dist") or []
    for module, extra in _EXTRA_OF.items():
        assert any(text.startswith(module) and f'extra == "{extra}"' in text.replace("'", '"') for text in required)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_output_fits_any_encoding(encoding: str) -> None:
    """Bars and arrows that a terminal can't show are question marks there, and end no command."""
    code = "from spotproof.cli import run; print(run(['traces']), run(['traces', 'no.json']))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    shown = result.stdout.decode(encoding)

    assert shown.splitlines()[-1] == "0 2"
    assert ("█" if encoding == "utf-8" else "?") in shown
    assert b"Give a path to a trace file" in result.stderr


def test_error_text_is_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets of users and services are shown as they are."""
    show_error(SpecError("[red]x[/red]", why="because [1]", do="do [2]"))

    assert "[red]x[/red] because [1]" in capsys.readouterr().err
