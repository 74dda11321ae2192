"""The lines that a script lacks: applied, they are a script that saves, and nothing else has changed."""

import ast

import pytest

from spotproof.project import read_program, suggest_changes


def changed(text: str) -> str:
    """The script after the suggestion."""
    program = read_program("train.py", text)
    assert program is not None
    lines = suggest_changes(program, text).splitlines()
    assert lines[0].startswith("---"), lines
    return "\n".join(line[1:] for line in lines[2:] if line[:1] in (" ", "+"))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("L.Trainer()", "L.Trainer(callbacks=[spot])"),
        ("L.Trainer(max_epochs=3)", "L.Trainer(max_epochs=3, callbacks=[spot])"),
        ("L.Trainer(max_epochs=3,)", "L.Trainer(max_epochs=3, callbacks=[spot],)"),
        ("L.Trainer(callbacks=[a])", "L.Trainer(callbacks=[spot, a])"),
        ("L.Trainer(callbacks=[])", "L.Trainer(callbacks=[spot])"),
        ("L.Trainer(callbacks=mine)", "L.Trainer(callbacks=[spot, *mine])"),
        ("L.Trainer(name='é')", "L.Trainer(name='é', callbacks=[spot])"),
    ],
)
def test_a_trainer_gets_the_callback(call: str, expected: str) -> None:
    """Whatever arguments it has, and fit goes on from the newest checkpoint."""
    text = f"import lightning as L\ndef main():\n    trainer = {call}\n    trainer.fit(model, data)\n"
    after = changed(text)

    ast.parse(after)
    assert f"trainer = {expected}" in after
    assert "    spot = SpotCheckpoint()\n" in after
    assert "trainer.fit(model, data, ckpt_path=spot.latest())" in after
    assert after.startswith("import lightning as L\nfrom spotproof.lightning import SpotCheckpoint\n")


def test_a_given_ckpt_path_is_replaced() -> None:
    """Two would be an error."""
    after = changed("from lightning import Trainer\nt = Trainer()\nt.fit(m, ckpt_path='last.ckpt')\n")

    assert "t.fit(m, ckpt_path=spot.latest())" in after


@pytest.mark.parametrize(
    "text",
    [
        "from lightning.pytorch.cli import LightningCLI\nLightningCLI(M)\n",
        "from lightning.pytorch.cli import LightningCLI, X\nclass C(LightningCLI):\n    pass\nC(M)\n",
        "from lightning.pytorch.cli import LightningCLI as C\nC(M)\n",
        "import lightning.pytorch.cli as cli\ncli.LightningCLI(M)\n",
    ],
)
def test_spot_cli_takes_the_place_of_the_cli(text: str) -> None:
    """However it was imported."""
    after = changed(text)
    program = read_program("train.py", after)

    assert program is not None
    assert program.kind == "SpotCLI"
    assert "from spotproof.lightning import SpotCLI" in after


def test_words_where_no_lines_can_be_given() -> None:
    """A trainer that is made elsewhere, a loop, Hugging Face: what to do, in words; nothing where nothing lacks."""
    apart = "def make():\n    return Trainer()\ndef main():\n    make().fit(m)\n"
    loop = "import torch\nloss.backward()\noptimizer.step()\n"
    other = "from transformers import Trainer\nTrainer(m).train()\n"
    saves = "t = Trainer(callbacks=[SpotCheckpoint()])\nt.fit(m)\n"
    found = []
    for text in (apart, loop, other, saves):
        program = read_program("train.py", text)
        assert program is not None
        found.append(suggest_changes(program, text))

    assert "SpotCheckpoint()" in found[0]
    assert "SpotLoop" in found[1]
    assert "SpotTrainer" in found[2]
    assert found[3] == ""
