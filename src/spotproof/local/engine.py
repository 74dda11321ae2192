"""What an engine means for hosts: who their processes are, and what a killed server left there."""

import os
from typing import Literal

from spotproof.engine import Engine
from spotproof.local.engine_commands import build_removal, build_search

__all__ = ["choose_user", "end_leftovers", "has_late_gateways"]


def has_late_gateways(engine: Engine) -> bool:
    """Return whether a network's gateway is on this machine, but only once a container is in it."""
    return engine.kind == "podman" and not engine.is_rootless


def choose_user(engine: Engine) -> str | None:
    """Return who a container's processes are, if not whom the image says.

    What they write is synced, uploaded and removed by the server: it must not belong to root if the server's user is
    another.
    """
    is_strange = os.getuid() != 0 and not engine.is_rootless
    return f"{os.getuid()}:{os.getgid()}" if is_strange else None


def end_leftovers(engine: Engine, owner: str) -> list[str]:
    """Remove the containers and networks of a state directory, which a killed server left; return their ids."""
    containers = _list(engine, "container", owner)
    for name in containers:
        engine.run(build_removal(engine.kind, name))
    networks = _list(engine, "network", owner)
    for name in networks:
        engine.run(["network", "rm", name])
    return [*containers, *networks]


def _list(engine: Engine, thing: Literal["container", "network"], owner: str) -> list[str]:
    return engine.run(build_search(thing, owner)).stdout.split()
