"""What the pages tell people to type is there: commands, their options, the tutorial's script and job."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from spotproof.cli.app import app
from spotproof.cli.examples import EXAMPLES
from spotproof.spec import parse_job_spec

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(spotproof [^`]+)`")


def commands_of(page: Path) -> Iterator[str]:
    """Return the command lines of ours on *page*: in text, in shells, and after the prompt of what was printed."""
    text = page.read_text()
    for language, block in _FENCE.findall(text):
        prompt = r"^\$ (spotproof .*)$" if language == "text" else r"(?<![\w/.-])(spotproof [a-z].*)$"
        if language in ("sh", "text"):
            yield from re.findall(prompt, block, re.MULTILINE)
    yield from _INLINE.findall(_FENCE.sub("", text).replace("\n", " "))
    yield from re.findall(r"^    (spotproof .*)$", text, re.MULTILINE)


def check_command(line: str) -> None:
    """Return if there is such a command with such options."""
    words = shlex.split(re.split(r" +#|\)\"", line)[0])[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word == "--" or (command.name == "env" and not word.startswith("-")):
            return  # the rest is another program's
        if word.startswith("-") and word not in ("--help", "-h"):
            assert word.strip("[]").partition("=")[0] in known, f"{line}: {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_there(page: Path) -> None:
    """Each command on the page exists, with each of its options."""
    for line in commands_of(page):
        check_command(line)


def test_examples_of_the_help_are_there() -> None:
    """Below each command is how it is used: of every one, with options that it has, and within 80 columns."""
    for command, lines in EXAMPLES.items():
        text = "\n".join(lines).replace("\\\n", "")
        for line in text.splitlines():
            found = re.search(r"spotproof .*", line)
            assert found is not None, line
            assert f"spotproof {command}".strip() in line
            check_command(found[0])
    assert max(len(line) for lines in EXAMPLES.values() for line in lines) <= 76
    assert {""} | set(_names(typer.main.get_command(app))) == set(EXAMPLES)


def _names(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        yield from _names(command, f"{prefix}{name} ") if hasattr(command, "commands") else [prefix + name]


def test_commands_are_seen_and_wrong_ones_found() -> None:
    """The test above reads the pages, and fails where it should."""
    assert {line.split()[1] for line in commands_of(ROOT / "docs" / "tutorial.md")} >= {
        "rehearse", "serve", "launch", "logs", "report", "plan", "watch", "env", "init",
    }  # fmt: skip
    with pytest.raises(KeyError):
        check_command("spotproof rehears job.yaml")
    with pytest.raises(AssertionError, match="--reclam"):
        check_command("spotproof rehearse job.yaml --reclam step:1")


def block(name: str) -> str:
    """Return the tutorial's block of that name."""
    (text,) = re.findall(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)
    return str(text)


def patched(text: str, diff: str) -> str:
    """Return *text* with the unified *diff* applied."""
    lines, out, at = text.splitlines(), list[str](), 0
    for line in diff.splitlines()[2:]:
        if hunk := re.match(r"@@ -(\d+)", line):
            begin = int(hunk[1]) - 1
            out += lines[at:begin]
            at = begin
        elif line.startswith("+"):
            out.append(line[1:])
        else:
            assert lines[at] == line[1:]
            at += 1
            if not line.startswith("-"):
                out.append(line[1:])
    return "\n".join(out + lines[at:])


def test_the_tutorial_s_script() -> None:
    """It is a program before and after the change, and the change is what the page says it is."""
    before, diff = block("train.py"), block("diff")
    after = patched(before, diff)
    compile(before, "train.py", "exec")
    compile(after, "train.py", "exec")
    assert "SpotCheckpoint" not in before
    assert "ckpt_path=spot.latest()" in after
    assert "callbacks=[spot]" in after


def test_the_tutorial_s_job(tmp_path: Path) -> None:
    """Its file is valid, and its hyperparameter is an option of the script."""
    (tmp_path / "train.py").write_text(block("train.py"))
    spec = parse_job_spec({**yaml.safe_load(block("job.yaml")), "source_dir": str(tmp_path)}, source="job.yaml")
    assert spec.use_spot_instances
    assert [f'"--{name}"' in block("train.py") for name in spec.hyperparameters] == [True]
