"""The container engine of this machine, Docker or Podman, as its command line: found, and asked for images.

In: which one is wanted. Out: an :class:`Engine`, or an error that says why there is none. Who may import it: ``local``,
which runs jobs in containers, ``launch``, which builds and pushes images, and ``cli``.
"""

import json
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from spotproof.errors import EngineError, SpecError

__all__ = [
    "ENGINE_CHOICES",
    "Engine",
    "EngineChoice",
    "EngineKind",
    "find_engine",
    "kind_of",
    "parse_engine",
    "parse_image_id",
    "require_engine",
]

EngineKind = Literal["docker", "podman"]
EngineChoice = Literal["auto", "docker", "podman", "none"]
ENGINE_CHOICES: Final[tuple[EngineChoice, ...]] = ("auto", "docker", "podman", "none")
_NAMES: Final = ("docker", "podman")
_PATIENCE_SECONDS: Final = 60.0
_PROBE_PATIENCE_SECONDS: Final = 20.0
_MOST_FILES: Final = 1 << 20
"""What Podman itself would ask for."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Docker or Podman. It answered when this was made."""

    path: str
    kind: EngineKind
    version: str
    is_rootless: bool = False
    """Whether root in a container is the engine's user outside."""

    def __str__(self) -> str:
        return f"{'Docker' if self.kind == 'docker' else 'Podman'} {self.version}"

    @property
    def environment(self) -> dict[str, str]:
        """What its command line finds around it: our own, which says where a daemon is."""
        return dict(os.environ)

    @property
    def ulimits(self) -> dict[str, int]:
        """Limits to ask for. Podman without a daemon can't give more than we have, and fails if it tries."""
        if self.kind == "docker":
            return {}
        # Podman itself takes as many processes as the kernel has numbers for.
        most = {"nofile": (resource.RLIMIT_NOFILE, _MOST_FILES), "nproc": (resource.RLIMIT_NPROC, _most_processes())}
        hard = {name: resource.getrlimit(number)[1] for name, (number, _) in most.items()}
        return {name: min(hard[name], limit) if hard[name] >= 0 else limit for name, (_, limit) in most.items()}

    def run(
        self, words: Sequence[str], seconds: float = _PATIENCE_SECONDS, *, text: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Return what the engine says to *words*, and to *text* on its stdin.

        What takes longer than *seconds* counts as a failure.
        """
        return _run([self.path, *words], seconds, text)

    def find_image(self, uri: str) -> str | None:
        """Return the digest of the image that is here under *uri*; None if there is none. Nothing is pulled.

        Raises:
            EngineError: The engine does not answer.
        """
        result = self.run(["image", "inspect", "--", uri])
        if result.returncode != 0:
            # An engine that has gone since says that, and not that there is no such image.
            _check_answers(self)
            return None
        return parse_image_id(result.stdout)


def parse_engine(text: str) -> EngineChoice:
    """Return which engine is to be used.

    Raises:
        SpecError: *text* names none.
    """
    for choice in ENGINE_CHOICES:
        if text == choice:
            return choice
    raise SpecError(f"The container engine {text!r} is unknown.", do=f"Write {', '.join(ENGINE_CHOICES)}.")


def find_engine(choice: EngineChoice) -> Engine | None:
    """Return the engine to use; None if none is wanted, or none that is looked for by itself answers.

    Raises:
        EngineError: The one that was asked for does not answer.
    """
    if choice == "none":
        return None
    try:
        return require_engine(choice)
    except EngineError as error:
        if choice != "auto":
            raise
        is_installed = any(map(shutil.which, _NAMES))
        _log.log(logging.WARNING if is_installed else logging.INFO, "%s", error)
        return None


def require_engine(choice: EngineChoice) -> Engine:
    """Return the engine to use.

    Raises:
        EngineError: There is none, or it does not answer.
    """
    if choice in ("docker", "podman"):
        return _open(choice)
    reasons = []
    for name in _NAMES:
        try:
            return _open(name)
        except EngineError as error:
            reasons.append(f"{name}: {error.why.rstrip('.')}")
    raise EngineError(
        "No container engine can be used:", why=f"{'; '.join(reasons)}.", do="Install Docker or Podman, or start it."
    )


def kind_of(version_text: str) -> EngineKind | None:
    """Return which engine answers ``--version`` so; on some machines ``docker`` is a name of Podman's."""
    text = version_text.lower()
    kinds: tuple[EngineKind, ...] = ("podman", "docker")
    return next((kind for kind in kinds if kind in text), None)


def parse_image_id(text: str) -> str | None:
    """Return the digest of the image that ``image inspect`` tells of; None if it tells of none."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return None
    entry = found[0] if isinstance(found, list) and found else found
    identity = entry.get("Id") if isinstance(entry, dict) else None
    return identity if isinstance(identity, str) and identity else None


def _open(name: str) -> Engine:
    path = shutil.which(name)
    if path is None:
        raise EngineError(
            f"The container engine {name} can't be used:",
            why="there is no such command on PATH.",
            do="Install it, or leave --engine out.",
        )
    version_text = _run([path, "--version"], _PROBE_PATIENCE_SECONDS).stdout
    kind = kind_of(version_text)
    if kind is None:
        raise EngineError(
            f"{path} is no container engine that is known here:", why=f"it says {version_text.strip()!r}."
        )
    version = next((word.rstrip(",") for word in version_text.split() if word[:1].isdigit()), "")
    engine = Engine(path=path, kind=kind, version=version)
    return replace(engine, is_rootless=_check_answers(engine))


def _check_answers(engine: Engine) -> bool:
    """Return whether the engine is rootless.

    Raises:
        EngineError: It does not answer.
    """
    question = "{{.SecurityOptions}}" if engine.kind == "docker" else "{{.Host.Security.Rootless}}"
    result = engine.run(["info", "--format", question], _PROBE_PATIENCE_SECONDS)
    if result.returncode != 0 or not result.stdout.strip():
        said = " ".join(result.stderr.split()) or f"it ended with code {result.returncode}"
        raise EngineError(
            f"The container engine {engine.kind} does not answer:",
            why=f"{said.rstrip('.')}.",
            do="Start it, or use --engine none; `docker info` and `podman info` say more.",
        )
    return "rootless" in result.stdout if engine.kind == "docker" else result.stdout.strip() == "true"


def _most_processes() -> int:
    try:
        return int(Path("/proc/sys/kernel/pid_max").read_text())
    except (OSError, ValueError):
        return 1 << 15


def _run(command: Sequence[str], seconds: float, text: str = "") -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"{error}")
