"""A look into a folder: its programs, its configuration, what it needs, where its data is."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from spotproof.project.evidence import source_files
from spotproof.project.programs import Kind, Program, read_program

__all__ = ["Project", "look_at_project"]

_REQUIREMENTS = ("requirements.txt", "pyproject.toml", "environment.yml", "environment.yaml")
_USUAL_NAMES = ("train.py", "main.py", "run.py", "cli.py")
_DATA = ("data", "dataset", "datasets")
_KINDS = get_args(Kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """What `spotproof init` has found."""

    folder: Path
    programs: tuple[Program, ...]
    """Those that train, the likeliest first."""
    config: str | None
    """A YAML file with the fields of a LightningCLI."""
    requirements: str | None
    """The file that says which packages it needs."""
    packages: tuple[str, ...]
    """What the program imports that is neither Python's nor the project's own."""
    data: str | None
    """A folder with data."""


def look_at_project(folder: Path) -> Project:
    """Return what the files in *folder* tell. Files that can't be read are passed over."""
    programs = []
    for path in source_files(folder, (".py",)):
        try:
            program = read_program(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
            continue
        if program is not None:
            programs.append(program)
    programs.sort(key=_likelihood)
    data = next((name for name in _DATA if (folder / name).is_dir() and any((folder / name).iterdir())), None)
    return Project(
        folder=folder,
        programs=tuple(programs),
        config=_find_config(folder),
        requirements=next((name for name in _REQUIREMENTS if (folder / name).is_file()), None),
        packages=tuple(_foreign(folder, programs[0].modules)) if programs else (),
        data=data,
    )


def _likelihood(program: Program) -> tuple[bool, int, int, int, str]:
    name = program.name.rpartition("/")[2]
    usual = _USUAL_NAMES.index(name) if name in _USUAL_NAMES else len(_USUAL_NAMES)
    return (not program.is_started, program.name.count("/"), _KINDS.index(program.kind), usual, program.name)


def _find_config(folder: Path) -> str | None:
    import yaml

    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml"), *folder.glob("config*/*.yaml")]):
        try:
            fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
            continue
        if isinstance(fields, dict) and ({"trainer", "model"} & fields.keys()) and "image_uri" not in fields:
            return path.relative_to(folder).as_posix()
    return None


def _foreign(folder: Path, modules: Iterable[str]) -> list[str]:
    own = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    return sorted(name for name in modules if name not in own | sys.stdlib_module_names)
