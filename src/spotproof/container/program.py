"""Which program runs, where, and by which command."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotproof.container.arguments import build_arguments, decode_hyperparameters, user_hyperparameters
from spotproof.contract import CODE_DIR
from spotproof.errors import SpecError

__all__ = ["Command", "build_command", "choose_program"]

_ENV_PROGRAM = "SAGEMAKER_PROGRAM"
_HYPERPARAMETER_PROGRAM = "sagemaker_program"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What to start."""

    program: str
    """As it was named."""
    argv: list[str]
    directory: Path


def choose_program(
    named: str | None, raw_hyperparameters: Mapping[str, Any], environ: Mapping[str, str], *, is_submitted: bool = False
) -> str:
    """Return the program's name: from the command line, else from the environment, else from the hyperparameters.

    If code *is_submitted*, the request names its program, and the image's command line comes last.

    Raises:
        SpecError: None of them names one.
    """
    requested = environ.get(_ENV_PROGRAM) or decode_hyperparameters(raw_hyperparameters).get(_HYPERPARAMETER_PROGRAM)
    program = requested or named if is_submitted else named or requested
    if not program:
        raise SpecError(
            "No program was named.",
            why=f"The command line, {_ENV_PROGRAM} and the hyperparameter {_HYPERPARAMETER_PROGRAM} are all empty.",
            do="Use the entrypoint [python, -m, spotproof.container, train.py].",
        )
    return str(program)


def build_command(
    program: str,
    fixed_arguments: Sequence[str],
    raw_hyperparameters: Mapping[str, Any],
    *,
    base: Path,
    working_directory: Path,
    python: str,
) -> Command:
    """Return how to start *program*: from ``code`` below *base* if it lies there, else from *working_directory*.

    Fixed arguments come first, so that a hyperparameter of the same name wins.

    Raises:
        SpecError: The program does not exist, or is no file that can be run.
    """
    places = [base / CODE_DIR, working_directory]
    path = Path(program)
    if path.is_absolute() and path.is_file():
        directory: Path | None = next((place for place in places if path.is_relative_to(place)), working_directory)
    else:
        directory = next((place for place in places if (place / path).is_file()), None)
    if directory is None:
        raise SpecError(
            f"The program {program} does not exist.",
            why=f"It was looked for in {' and in '.join(dict.fromkeys(map(str, places)))}.",
            do="Check the name in the entrypoint, and that source_dir holds the file.",
        )
    arguments = [*fixed_arguments, *build_arguments(user_hyperparameters(decode_hyperparameters(raw_hyperparameters)))]
    return Command(program=program, argv=[*_runner(program, directory, python), *arguments], directory=directory)


def _runner(program: str, directory: Path, python: str) -> list[str]:
    path = directory / program
    if path.suffix == ".py":
        return [python, program]
    if path.suffix == ".sh":
        return ["/bin/sh", program]
    if os.access(path, os.X_OK):
        return [str(path)]
    raise SpecError(
        f"The program {path} cannot be run.",
        why="It is neither a .py nor a .sh file, and it is not executable.",
        do="Make it executable with chmod +x, or name a .py file.",
    )
