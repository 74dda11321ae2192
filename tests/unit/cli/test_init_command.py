"""`spotproof init`: what it writes is a job, and it writes over nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from spotproof.cli import run
from spotproof.rehearsal import check_rehearsable
from spotproof.spec import build_schema, read_job_spec

CLI = "from lightning.pytorch.cli import LightningCLI\nif __name__ == '__main__':\n    LightningCLI(M)\n"
LOOP = "import torch, numpy, sklearn\nimport own\np.add_argument('--epochs', default=3)\nloss.backward()\nopt.step()\n"


def init(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["init", *argv])
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


@pytest.mark.parametrize(
    "text", [CLI, CLI.replace("LightningCLI", "SpotCLI"), LOOP, LOOP.replace("--epochs", "--é: x")]
)
def test_what_is_written_is_a_job_that_can_be_rehearsed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    """It passes the reader without any variable set, with each of its profiles, and the schema it names."""
    import jsonschema

    project = tmp_path / "My_Project 1"
    (project / "data").mkdir(parents=True)
    (project / "data" / "a").touch()
    (project / "train.py").write_text(text)
    (project / "conf.yaml").write_text("trainer: {}\n")

    code, out, err = init(capsys, str(project), "--json")

    assert code == 0, err
    assert json.loads(out)["written"] == ["job.yaml", "Dockerfile", ".dockerignore", "job.schema.json"]
    job = project / "job.yaml"
    fields: dict[str, Any] = yaml.safe_load(job.read_text())
    for profile in (None, *fields.get("profiles", {})):
        spec = read_job_spec(job, profile=profile, environment={})
        assert check_rehearsable(spec).folder == project
    assert spec.name == "my-project-1"
    assert spec.local_inputs == {"training": project / "data"}
    jsonschema.Draft202012Validator(json.loads((project / "job.schema.json").read_text())).validate(fields)
    assert json.loads((project / "job.schema.json").read_text()) == build_schema()
    assert (
        f"ENTRYPOINT {json.dumps(['python', '-m', 'spotproof.container', *spec.entrypoint])}"
        in (project / "Dockerfile").read_text()
    )


def test_nothing_is_written_over(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One file that is there keeps all from being written, unless it is asked for."""
    (tmp_path / "train.py").write_text(LOOP)
    (tmp_path / "Dockerfile").write_text("FROM mine")

    code, _, err = init(capsys, str(tmp_path))
    assert code == 2
    assert "Dockerfile is in" in err
    assert "--force" in err
    assert not (tmp_path / "job.yaml").exists()
    assert (tmp_path / "Dockerfile").read_text() == "FROM mine"

    assert init(capsys, str(tmp_path), "--force")[0] == 0
    dockerfile = (tmp_path / "Dockerfile").read_text()
    assert "pip install --no-cache-dir numpy own scikit-learn" in dockerfile


def test_the_lines_that_are_missing_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As a diff, and the commands that come next."""
    (tmp_path / "train.py").write_text(CLI)

    code, out, _ = init(capsys, str(tmp_path))

    assert code == 0
    assert "train.py uses LightningCLI." in out
    assert "-from lightning.pytorch.cli import LightningCLI" in out
    assert "+from spotproof.lightning import SpotCLI" in out
    assert "spotproof rehearse" in out
    assert "--dry-run" in out


def test_nothing_is_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The project's code is text."""
    (tmp_path / "train.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{LOOP}")

    assert init(capsys, str(tmp_path))[0] == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [(["nowhere"], "There is no folder"), (["."], "trains"), ([".", "--program", "x.py"], "Those that do: none")],
)
def test_wrong_requests(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    expected: str,
) -> None:
    """Exit 2, in words, and nothing is written."""
    monkeypatch.chdir(tmp_path)

    code, _, err = init(capsys, *argv)

    assert code == 2
    assert expected in err
    assert list(tmp_path.iterdir()) == []


def test_another_program_can_be_chosen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By its path in the project."""
    (tmp_path / "train.py").write_text(LOOP)
    (tmp_path / "cli.py").write_text(CLI)

    _, out, _ = init(capsys, str(tmp_path), "--program", "./train.py", "--json")

    assert (json.loads(out)["program"], json.loads(out)["other_programs"]) == ("train.py", ["cli.py"])


def test_a_folder_of_notebooks_is_told_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A notebook is no program: the command that makes one is in the error, fit for a shell."""
    (tmp_path / "my model.ipynb").write_text("{}")

    code, _, err = init(capsys, str(tmp_path))

    assert code == 2
    assert "my model.ipynb is a notebook" in err
    assert "jupyter nbconvert --to script 'my model.ipynb'" in err


def test_the_next_commands_work_from_here(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each names the job.yaml that was written, not one in the folder where the user is."""
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "train.py").write_text(LOOP)

    _, out, _ = init(capsys, str(folder))

    named = [f"{words} '{folder}/job.yaml'" for words in ("rehearse", "image build", "image push", "launch")]
    assert [words for words in named if words not in "".join(out.splitlines())] == []


@pytest.mark.parametrize("packages", ["requirements.txt", "pyproject.toml", None])
def test_the_code_is_copied_once(capsys: pytest.CaptureFixture[str], tmp_path: Path, packages: str | None) -> None:
    """The packages of the project are in a layer of their own where they can be."""
    (tmp_path / "train.py").write_text(f"import sklearn\n{LOOP}")
    if packages is not None:
        (tmp_path / packages).write_text("")

    assert init(capsys, str(tmp_path))[0] == 0

    lines = (tmp_path / "Dockerfile").read_text().splitlines()
    assert lines.count("COPY . .") == 1
    installs = next(index for index, line in enumerate(lines) if line.startswith("RUN pip install"))
    assert (installs > lines.index("COPY . .")) == (packages == "pyproject.toml")
