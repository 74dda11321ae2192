"""What is said to a container engine's command line, and what it answers. Pure.

Docker's and Podman's command lines are one language but for a few words; those are told apart here and nowhere else.

Source: docs.docker.com, "docker container create", "docker network create"; docs.podman.io, podman-create(1),
podman-rm(1), podman-network-create(1). Run with Docker 20.10 and 28.2 and with Podman 4.3.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from spotproof.engine import Engine, EngineKind
from spotproof.local.limits import HostLimits

__all__ = [
    "ContainerPlan",
    "Mount",
    "NetworkPlace",
    "build_container",
    "build_network",
    "build_removal",
    "build_search",
]

LABEL: Final = "spotproof.owner"
"""Its value is the state directory's id, see :func:`spotproof.local.registry.owner_id`."""
_LABEL_WHAT: Final = "spotproof.host"
_CLIENT_VARIABLES: Final = ("PATH", "HOME", "TMPDIR", "GODEBUG", "NO_COLOR", "TERM", "SSH_AUTH_SOCK")
_CLIENT_PREFIXES: Final = ("LD_", "XDG_", "DOCKER_", "CONTAINER", "_CONTAINERS_", "PODMAN_", "STORAGE_", "BUILDAH_")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine, as a container sees it."""

    source: str
    target: str
    is_read_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPlace:
    """A container's place in a network of its own."""

    network: str
    address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerPlan:
    """What a container is to be."""

    name: str
    owner: str
    what: str
    """For people who look at its labels."""
    hostname: str
    words: Sequence[str]
    """The end of the command line, as :func:`spotproof.local.images.command_of` gives it."""
    mounts: Sequence[Mount]
    environment: Mapping[str, str]
    hosts: Mapping[str, str]
    """Addresses by name."""
    limits: HostLimits
    shm_bytes: int
    user: str | None = None
    """None for the image's own."""
    place: NetworkPlace | None = None
    """None for the machine's network."""
    ulimits: Mapping[str, int] = field(default_factory=dict)
    """Hard and soft limits, by Docker's names, that the engine's own are to be replaced with."""


def build_container(engine: Engine, plan: ContainerPlan) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the command lines of a container's life, see ``_engine.py``, and the environment of the first.

    A container's variables pass through the client's environment, where no other user can read them; those that would
    mean something to the client itself are on its command line.
    """
    given = {name: value for name, value in plan.environment.items() if not _is_clients(name)}
    create = [engine.path, "container", "create", "--name", plan.name, "--pull", "never"]
    create += _labels(plan.owner, plan.what)
    create += ["--hostname", plan.hostname, "--log-driver", "none", "--security-opt", "label=disable"]
    create += ["--shm-size", str(plan.shm_bytes)]
    for name, value in plan.environment.items():
        create += ["--env", name if name in given else f"{name}={value}"]
    for mount in plan.mounts:
        create += ["--mount", _mount_text(mount)]
    if plan.place is None:
        create += ["--network", "host"]
    else:
        create += ["--network", plan.place.network, "--ip", plan.place.address]
    for name, address in plan.hosts.items():
        create += ["--add-host", f"{name}:{address}"]
    create += _limits(plan.limits)
    for name, limit in plan.ulimits.items():
        create += ["--ulimit", f"{name}={limit}:{limit}"]
    if plan.user is not None:
        create += ["--user", plan.user]
    if engine.kind == "podman":
        create += ["--http-proxy=false"]  # else it passes on the server's own proxies
    container = [engine.path, "container"]
    commands = {
        "create": [*create, *plan.words],
        "start": [*container, "start", "--attach", plan.name],
        "terminate": [*container, "kill", "--signal", "TERM", plan.name],
        "wait": [*container, "wait", plan.name],
        "look": [*container, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", plan.name],
        "remove": [engine.path, *build_removal(engine.kind, plan.name)],
    }
    return commands, given


def build_removal(kind: EngineKind, name: str) -> list[str]:
    """Return what is said to kill and remove a container, with the volumes that its image asks for."""
    # Podman would send SIGTERM first and wait for ten seconds; Docker does not, and has no such word.
    patience = ["--time", "0"] if kind == "podman" else []
    return ["container", "rm", "--force", "--volumes", *patience, name]


def build_network(
    engine: Engine, *, name: str, owner: str, what: str, subnet: str, gateway: str, is_internal: bool
) -> dict[str, list[str]]:
    """Return the command lines of a network's life."""
    create = [engine.path, "network", "create", *_labels(owner, what), "--subnet", subnet, "--gateway", gateway]
    create += ["--internal"] * is_internal
    return {"create": [*create, name], "remove": [engine.path, "network", "rm", name]}


def build_search(thing: Literal["container", "network"], owner: str) -> list[str]:
    """Return what is said to list the containers or networks of one state directory, whatever they do."""
    every = ["--all"] if thing == "container" else []
    return [thing, "ls", *every, "--quiet", "--filter", f"label={LABEL}={owner}"]


def _is_clients(name: str) -> bool:
    return name in _CLIENT_VARIABLES or name.startswith(_CLIENT_PREFIXES) or name.lower().endswith("_proxy")


def _labels(owner: str, what: str) -> list[str]:
    return ["--label", f"{LABEL}={owner}", "--label", f"{_LABEL_WHAT}={what}"]


def _limits(limits: HostLimits) -> list[str]:
    """An instance has no swap: the limit of both together is that of the memory."""
    words = []
    if limits.memory_bytes is not None:
        words += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
    if limits.cpus is not None:
        words += ["--cpus", f"{limits.cpus:g}"]
    return words


def _mount_text(mount: Mount) -> str:
    """One line of CSV: that is how both engines read it, so that a path may hold a comma."""
    line = io.StringIO()
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    csv.writer(line, lineterminator="").writerow([*fields, "readonly"] if mount.is_read_only else fields)
    return line.getvalue()
