"""The container engine of this machine: found, asked for images, and cleared of what a killed server left there."""

import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from spotproof.errors import EngineError, SpecError
from spotproof.local.engine_commands import EngineKind, build_removal, build_search, kind_of, parse_image_id

__all__ = ["ENGINE_CHOICES", "Engine", "EngineChoice", "find_engine", "parse_engine"]

EngineChoice = Literal["auto", "docker", "podman", "none"]
ENGINE_CHOICES: Final[tuple[EngineChoice, ...]] = ("auto", "docker", "podman", "none")
_PATIENCE_SECONDS: Final = 60.0
_PROBE_PATIENCE_SECONDS: Final = 20.0
_MOST_FILES: Final = 1 << 20
"""What Podman itself would ask for."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Docker or Podman, as its command line. It answered when this was made."""

    path: str
    kind: EngineKind
    version: str
    is_rootless: bool
    """Whether root in a container is the engine's user outside."""

    def __str__(self) -> str:
        return f"{'Docker' if self.kind == 'docker' else 'Podman'} {self.version}"

    @property
    def environment(self) -> dict[str, str]:
        """What its command line finds around it: the server's own, which says where the daemon is."""
        return dict(os.environ)

    @property
    def has_late_gateways(self) -> bool:
        """Whether a network's gateway is on this machine, but only once a container is in it."""
        return self.kind == "podman" and not self.is_rootless

    @property
    def user(self) -> str | None:
        """Who a container's processes are, if not whom the image says.

        What they write is synced, uploaded and removed by the server: it must not belong to root if the server's user
        is another.
        """
        is_strange = os.getuid() != 0 and not self.is_rootless
        return f"{os.getuid()}:{os.getgid()}" if is_strange else None

    @property
    def ulimits(self) -> dict[str, int]:
        """Limits to ask for. Podman without a daemon can't give more than the server has, and fails if it tries."""
        if self.kind == "docker":
            return {}
        # Podman itself takes as many processes as the kernel has numbers for.
        most = {"nofile": (resource.RLIMIT_NOFILE, _MOST_FILES), "nproc": (resource.RLIMIT_NPROC, _most_processes())}
        hard = {name: resource.getrlimit(number)[1] for name, (number, _) in most.items()}
        return {name: min(hard[name], limit) if hard[name] >= 0 else limit for name, (_, limit) in most.items()}

    def find_image(self, uri: str) -> str | None:
        """Return the digest of the image that is here under *uri*; None if there is none. Nothing is pulled.

        Raises:
            EngineError: The engine does not answer.
        """
        result = _run([self.path, "image", "inspect", "--", uri])
        if result.returncode != 0:
            # An engine that has gone since says that, and not that there is no such image.
            _check_answers(self)
            return None
        return parse_image_id(result.stdout)

    def end_leftovers(self, owner: str) -> list[str]:
        """Remove the containers and networks of a state directory, which a killed server left; return their ids."""
        containers = self._list("container", owner)
        for name in containers:
            _run(build_removal(self.path, self.kind, name))
        networks = self._list("network", owner)
        for name in networks:
            _run([self.path, "network", "rm", name])
        return [*containers, *networks]

    def _list(self, thing: Literal["container", "network"], owner: str) -> list[str]:
        return _run(build_search(self.path, thing, owner)).stdout.split()


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
    for name in ("docker", "podman") if choice == "auto" else (choice,):
        try:
            return _open(name)
        except EngineError as error:
            if choice != "auto":
                raise
            _log.info("%s is not used: %s", name, error)
    return None


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
    engine = Engine(path=path, kind=kind, version=version, is_rootless=False)
    return Engine(path=path, kind=kind, version=version, is_rootless=_check_answers(engine))


def _check_answers(engine: Engine) -> bool:
    """Return whether the engine is rootless.

    Raises:
        EngineError: It does not answer.
    """
    question = "{{.SecurityOptions}}" if engine.kind == "docker" else "{{.Host.Security.Rootless}}"
    result = _run([engine.path, "info", "--format", question], _PROBE_PATIENCE_SECONDS)
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


def _run(command: Sequence[str], seconds: float = _PATIENCE_SECONDS) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"{error}")
