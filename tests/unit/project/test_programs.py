"""Which program trains and whether it saves, from its text alone."""

from pathlib import Path

import pytest

from spotproof.project import look_at_project, look_at_source, read_program
from spotproof.project.evidence import find_evidence

CLI = "from lightning.pytorch.cli import LightningCLI\nif __name__ == '__main__':\n    LightningCLI(M)\n"
PLAIN = "import lightning as L\ntrainer = L.Trainer(max_epochs=3)\ntrainer.fit(model)\n"
LOOP = "import torch\nfor batch in loader:\n    loss.backward()\n    optimizer.step()\n"


@pytest.mark.parametrize(
    ("text", "kind", "saves"),
    [
        (CLI, "LightningCLI", False),
        (
            CLI.replace("lightning.pytorch.cli", "spotproof.lightning").replace("LightningCLI", "SpotCLI"),
            "SpotCLI",
            True,
        ),
        ("from spotproof.lightning import SpotCLI\nclass C(SpotCLI): pass\nC(M)\n", "SpotCLI", True),
        ("import lightning.pytorch.cli as c\nc.LightningCLI(M)\n", "LightningCLI", False),
        ("from lightning.pytorch.cli import LightningCLI as C\nC(M)\n", "LightningCLI", False),
        (PLAIN, "Trainer", False),
        (PLAIN.replace("max_epochs=3", "callbacks=[SpotCheckpoint()]"), "Trainer", True),
        ("from transformers import Trainer\nTrainer(m).train()\n", "HuggingFace", False),
        (
            "from spotproof.huggingface import SpotTrainer\nimport transformers\nSpotTrainer(m).train()\n",
            "HuggingFace",
            True,
        ),
        (LOOP, "loop", False),
        (LOOP + "with SpotLoop('x') as spot: pass\n", "loop", True),
    ],
)
def test_kinds_of_programs(text: str, kind: str, saves: bool) -> None:
    """By what they use, not by what they import."""
    program = read_program("train.py", text)

    assert program is not None
    assert (program.kind, program.saves) == (kind, saves)


@pytest.mark.parametrize(
    "text", ["", "import torch\n", "from lightning.pytorch.cli import LightningCLI\n", "x = fit()\n"]
)
def test_what_does_not_train(text: str) -> None:
    """A module that only imports or defines is no program."""
    assert read_program("a.py", text) is None


def test_options_of_argparse() -> None:
    """Names, constant defaults, and flags that no hyperparameter can give."""
    text = LOOP + (
        "p.add_argument('folder')\np.add_argument('--lr', type=float, default=0.1)\np.add_argument('-n', '--name')\n"
        "p.add_argument('--out', default=os.environ['X'])\np.add_argument('--fast', action='store_true')\n"
    )
    program = read_program("train.py", text)

    assert program is not None
    assert [(option.name, option.default, option.has_value) for option in program.options] == [
        ("lr", 0.1, True),
        ("name", None, True),
        ("out", None, True),
        ("fast", None, False),
    ]


def test_the_likeliest_program_comes_first(tmp_path: Path) -> None:
    """One that is started, near the top, of the surest kind, with the usual name; environments and tests are none."""
    (tmp_path / "deep").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "env3").mkdir()
    (tmp_path / "env3" / "pyvenv.cfg").touch()
    for name, text in {
        "library.py": "def run():\n    " + PLAIN.replace("\n", "\n    ").rstrip() + "\n",
        "other.py": PLAIN,
        "train.py": PLAIN,
        "cli.py": CLI,
        "deep/train.py": CLI,
        ".venv/train.py": CLI,
        "tests/train.py": CLI,
        "env3/train.py": CLI,
        "broken.py": "def (",
        "binary.py": "\0",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.yaml").write_text("trainer: {max_epochs: 3}\n")
    (tmp_path / "requirements.txt").write_text("numpy\n")

    project = look_at_project(tmp_path)

    assert [program.name for program in project.programs] == [
        "cli.py",
        "train.py",
        "other.py",
        "deep/train.py",
        "library.py",
    ]
    assert (project.config, project.requirements, project.data) == ("model.yaml", "requirements.txt", None)
    assert project.packages == ("lightning",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from spotproof.lightning import SpotCheckpoint as S\nS()\n", {2: "SpotCheckpoint"}),
        ("import spotproof.lightning as s\nx = [s.SpotCheckpoint()]\n", {2: "SpotCheckpoint"}),
        ("torch.save(x, '/opt/ml/checkpoints/last.pt')\n", {1: "/opt/ml/checkpoints"}),
        ("d = os.environ['SM_CHECKPOINT_DIR']\n", {1: "SM_CHECKPOINT_DIR"}),
        ("from spotproof.lightning import SpotCheckpoint\n", {}),
        ('"""Writes to /opt/ml/checkpoints."""\n', {}),
        ("def f():\n    '''SM_CHECKPOINT_DIR'''\n", {}),
        ("# /opt/ml/checkpoints\n", {}),
        ("SpotCheckpoint = None\n", {}),
    ],
)
def test_evidence_is_use(text: str, expected: dict[int, str]) -> None:
    """An import, a comment and a documentation string save nothing."""
    assert find_evidence(text) == expected


def test_a_configuration_can_name_the_callback(tmp_path: Path) -> None:
    """LightningCLI's YAML does; a job.yaml's mention of the folder is no proof."""
    (tmp_path / "trainer.yaml").write_text("callbacks:\n- class_path: spotproof.lightning.SpotCheckpoint\n")
    (tmp_path / "job.yaml").write_text("checkpoint_local_path: /opt/ml/checkpoints\n# x.SpotCheckpoint\n")

    assert look_at_source(tmp_path).evidence == ("trainer.yaml:2 SpotCheckpoint",)
