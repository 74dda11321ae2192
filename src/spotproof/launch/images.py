"""A job's image: what it is made of, what the engine is told, and where it goes."""

import base64
import hashlib
import importlib.metadata
import os
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from spotproof.errors import SpecError

__all__ = [
    "Repository",
    "build_words",
    "login_words",
    "parse_repository",
    "parse_token",
    "stage_context",
    "write_wheel",
]

_ECR_HOST: Final = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
)
_REFERENCE: Final = re.compile(r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::(?P<tag>\w[\w.-]{0,127}))?")
_NOT_COPIED: Final = (".git", "__pycache__", ".venv", ".spotproof", ".mypy_cache", ".pytest_cache", ".ruff_cache")
_WHEEL_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""The oldest that a zip can hold: the same files make the same wheel, and the engine's cache holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """Where an image is pushed to."""

    name: str
    """Without the registry's host."""
    tag: str
    host: str | None = None
    """None for the ECR registry of whoever pushes."""
    account: str | None = None
    region: str | None = None
    """Both are known of an ECR host only."""

    @property
    def is_ecr(self) -> bool:
        """Whether ECR keeps it: SageMaker takes images from there."""
        return self.host is None or self.account is not None


def parse_repository(image_uri: str) -> Repository:
    """Return what the parts of *image_uri* are.

    Raises:
        SpecError: It names no repository and tag that could be pushed to.
    """
    first, slash, rest = image_uri.partition("/")
    # As the engines see it: what comes first is a host if it looks like one.
    host = first if slash and ("." in first or ":" in first or first == "localhost") else None
    reference = _REFERENCE.fullmatch(rest if host is not None else image_uri)
    if reference is None:
        raise SpecError(
            f"{image_uri!r} can't be pushed to:",
            why="it is no repository with a tag." + " A digest is made by the push." * ("@" in image_uri),
            do="Write repository:tag, or registry/repository:tag, in lower case.",
        )
    ecr = _ECR_HOST.fullmatch(host) if host is not None else None
    return Repository(
        name=reference["name"],
        tag=reference["tag"] or "latest",
        host=host,
        account=ecr["account"] if ecr is not None else None,
        region=ecr["region"] if ecr is not None else None,
    )


def build_words(
    *,
    image_uri: str,
    dockerfile: Path,
    context: Path,
    build_args: Mapping[str, str],
    platform: str | None,
    ulimits: Mapping[str, int],
) -> list[str]:
    """Return what an engine is told to build *image_uri* of *context*."""
    words = ["build", "--tag", image_uri, "--file", str(dockerfile)]
    words += ["--platform", platform] if platform is not None else []
    for name, value in build_args.items():
        words += ["--build-arg", f"{name}={value}"]
    for name, limit in ulimits.items():
        words += ["--ulimit", f"{name}={limit}:{limit}"]
    return [*words, str(context)]


def login_words(user: str, host: str) -> list[str]:
    """Return what logs in; the password goes to its stdin, where nobody else can read it."""
    return ["login", "--username", user, "--password-stdin", host]


def parse_token(answer: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return user, password and host of GetAuthorizationToken's answer."""
    data = answer["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return user, password, str(data["proxyEndpoint"]).partition("://")[2]


def stage_context(source: Path, dockerfile: Path, target: Path) -> Path:
    """Make *target* what the image is built of: *source*, the Dockerfile, and this Spotproof as a wheel.

    Files are linked where the disk allows it, and copied elsewhere.

    Returns:
        The Dockerfile's place in *target*.

    Raises:
        SpecError: There is no such Dockerfile, or Spotproof's own files can't be found.
    """
    if not dockerfile.is_file():
        raise SpecError(
            f"There is no {dockerfile}.",
            why="It says what the image is made of.",
            do="`spotproof init` writes one; or name it with --file.",
        )
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns(*_NOT_COPIED), copy_function=_link_or_copy, symlinks=True
    )
    place = target / "Dockerfile"
    if dockerfile.resolve() != (source / "Dockerfile").resolve():
        place.unlink(missing_ok=True)
        shutil.copy2(dockerfile, place)
    write_wheel(target)
    return place


def _link_or_copy(source: str, target: str, *, follow_symlinks: bool = True) -> str:
    try:
        os.link(source, target, follow_symlinks=follow_symlinks)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=follow_symlinks)
    return target


def write_wheel(folder: Path) -> Path:
    """Write this installation of Spotproof as a wheel into *folder*: so an image holds what its job was tried with.

    Source: packaging.python.org, "Binary distribution format".
    """
    package = Path(__file__).parents[1]
    try:
        installed = importlib.metadata.distribution("spotproof")
    except importlib.metadata.PackageNotFoundError as error:
        raise SpecError(
            "Spotproof itself can't be put into the image:",
            why="it runs without having been installed.",
            do="Install it: pip install -e FOLDER.",
        ) from error
    name = f"spotproof-{installed.version}"
    info = f"{name}.dist-info"
    files = {f"spotproof/{path.relative_to(package).as_posix()}": path.read_bytes() for path in _package_files(package)}
    # In a checkout in which a wheel was built, what is found may be setuptools' own folder, with the older name.
    metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/entry_points.txt"] = (installed.read_text("entry_points.txt") or "").encode()
    wheel = "Wheel-Version: 1.0\nGenerator: spotproof\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/WHEEL"] = wheel.encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD").encode()
    place = folder / f"{name}-py3-none-any.whl"
    place.unlink(missing_ok=True)  # of a link nothing may be written through
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, _WHEEL_DATE)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return place


def _package_files(package: Path) -> Sequence[Path]:
    return sorted(path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")


def _record(files: Mapping[str, bytes], own_path: str) -> str:
    lines = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    return "".join(lines) + f"{own_path},,\n"
