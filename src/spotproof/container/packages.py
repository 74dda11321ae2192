"""The packages that submitted code needs: its ``requirements.txt`` and its own ``setup.py``, as the toolkit does it.

They go into a directory of their own that comes before the image's packages, which stay as they are: on the local
platform the image's Python is one that other programs use, too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spotproof.errors import SpecError

__all__ = ["add_to_environment", "build_install", "build_resolve", "read_report"]

_REQUIREMENTS = "requirements.txt"
_PROJECT = "setup.py"


def build_resolve(directory: Path, report: Path, python: str) -> list[str] | None:
    """Return the command that finds out what is missing and writes that to *report*; None if the code needs nothing."""
    wanted = ["-r", _REQUIREMENTS] if (directory / _REQUIREMENTS).is_file() else []
    wanted += ["."] if (directory / _PROJECT).is_file() else []
    return [*_pip(python), "--dry-run", "--report", str(report), *wanted] if wanted else None


def read_report(report: Path) -> list[str]:
    """Return the packages to install, each as ``name @ URL``.

    Raises:
        SpecError: pip has written something else: it is too old.
    """
    try:
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
        return [_reference(item["metadata"]["name"], item["download_info"]) for item in found]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise SpecError(
            "The packages that the code needs can't be found out.",
            why=f"pip's report can't be read ({err!r}).",
            do="The image needs pip 22.2 or newer.",
        ) from err


def _reference(name: str, info: Mapping[str, Any]) -> str:
    url = str(info["url"])
    if "vcs_info" in info:
        return f"{name} @ {info['vcs_info']['vcs']}+{url}@{info['vcs_info']['commit_id']}"
    digest = info.get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{name} @ {url}#sha256={digest}" if digest else f"{name} @ {url}"


def build_install(references: list[str], target: Path, python: str) -> list[str]:
    """Return the command that installs exactly these packages into *target*."""
    return [*_pip(python), "--no-deps", "--target", str(target), *references]


def _pip(python: str) -> list[str]:
    return [python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]


def add_to_environment(environment: Mapping[str, str], target: Path) -> dict[str, str]:
    """Return *environment* in which the modules and commands in *target* are found first."""
    first = {"PYTHONPATH": str(target), "PATH": str(target / "bin")}
    joined = {name: ":".join(filter(None, [path, environment.get(name)])) for name, path in first.items()}
    return {**environment, **joined}
