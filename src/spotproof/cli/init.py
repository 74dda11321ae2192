"""``init``: job.yaml and Dockerfile for the project in a folder."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.options import Json
from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.project import Program, Project

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(help="The project.", metavar="FOLDER")] = Path(),
    program: Annotated[
        str | None, typer.Option(help="The script that trains, if it is not the one found.", metavar="FILE")
    ] = None,
    is_forced: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Write job.yaml and Dockerfile for a project.

    The project's files are read, not run. Tells which lines the script lacks to survive a reclaim.
    """
    from spotproof.cli.console import print_json
    from spotproof.project import build_dockerfile, build_dockerignore, build_job, look_at_project, suggest_changes
    from spotproof.project.files import SCHEMA_FILE
    from spotproof.spec import format_schema

    if not folder.is_dir():
        raise SpecError(f"There is no folder {folder}.", do="Name the folder with the training script.")
    project = look_at_project(folder.resolve())
    chosen = _choose(project, program)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    texts = {
        "job.yaml": build_job(project, chosen),
        "Dockerfile": build_dockerfile(project, chosen, python=version),
        ".dockerignore": build_dockerignore(project),
        SCHEMA_FILE: format_schema(),
    }
    present = [name for name in texts if (folder / name).exists()]
    if present and not is_forced:
        raise SpecError(
            f"{', '.join(present)} {'is' if len(present) == 1 else 'are'} in {folder.resolve()} already.",
            why="Nothing was written.",
            do="Move them away, or replace them: --force.",
        )
    for name, text in texts.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise SpecError(f"{folder / name} can't be written: {error.strerror}.", do="Check the folder.") from error
    changes = suggest_changes(chosen, (folder / chosen.name).read_text(encoding="utf-8"))
    if as_json:
        print_json(
            {
                "folder": str(folder.resolve()),
                "program": chosen.name,
                "kind": chosen.kind,
                "saves": chosen.saves,
                "written": list(texts),
                "changes": changes,
                "other_programs": [other.name for other in project.programs if other is not chosen],
            }
        )
        return
    _tell(project, chosen, folder, list(texts), changes)


def _choose(project: "Project", name: str | None) -> "Program":
    if name is not None:
        wanted = Path(name).as_posix().removeprefix("./")
        found = next((program for program in project.programs if program.name == wanted), None)
        if found is None:
            known = ", ".join(program.name for program in project.programs) or "none"
            raise SpecError(
                f"--program {name}: by its text it does not train, or it is not there.",
                why=f"Those that do: {known}.",
                do="Name one of them, by its path in the project.",
            )
        return found
    if not project.programs:
        notebooks = sorted(path.name for path in project.folder.glob("*.ipynb"))
        raise SpecError(
            f"Nothing in {project.folder} trains.",
            why="No Python file uses LightningCLI, a Trainer's fit, or a loop with backward and step."
            + (f" {notebooks[0]} is a notebook, and a job runs a script." if notebooks else ""),
            do=f"Make one of it: jupyter nbconvert --to script {shlex.quote(notebooks[0])}."
            if notebooks
            else "Name the folder with the training script: spotproof init FOLDER.",
        )
    return project.programs[0]


_KINDS = {
    "SpotCLI": "uses SpotCLI",
    "LightningCLI": "uses LightningCLI",
    "Trainer": "uses Lightning's Trainer",
    "HuggingFace": "uses Hugging Face's Trainer",
    "loop": "has a PyTorch loop of its own",
}


def _tell(project: "Project", program: "Program", folder: Path, written: list[str], changes: str) -> None:
    from rich.text import Text

    from spotproof.cli.console import print_line
    from spotproof.project.files import rehearsal_option

    print_line(f"{program.name} {_KINDS[program.kind]}.")
    others = [other.name for other in project.programs if other is not program and other.is_started]
    if others:
        print_line(f"Others that train: {', '.join(others[:5])}; --program chooses.")
    print_line(f"Written in {folder.resolve()}: {', '.join(written)}.")
    print_line("\nNext:")
    steps = []
    if changes:
        is_diff = changes.startswith("---")
        told = changes.replace("\n", "\n     ")
        steps.append(f"Make {program.name} survive a reclaim" + (":" if is_diff else f". {told}"))
    if not program.is_seeded and program.kind not in ("SpotCLI", "LightningCLI"):
        steps.append("Seed it, as lightning.seed_everything(42): without, no two runs are alike.")
    job = shlex.quote(str(folder / "job.yaml"))
    steps.append(f"See it survive: spotproof rehearse {job}{rehearsal_option(program)}")
    steps.append(f"Build the image and push it: spotproof image build {job}, spotproof image push {job}")
    steps.append(f"Set role, image and bucket; see what is wrong: spotproof launch {job} --dry-run")
    for number, step in enumerate(steps, 1):
        print_line(f"  {number}. {step}")
        if number == 1 and changes.startswith("---"):
            for line in changes.splitlines()[2:]:
                style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
                print_line(Text(f"     {line}", style=style))
