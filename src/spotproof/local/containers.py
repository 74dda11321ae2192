"""A host as a container of the engine: what it is made of, and the folders that it sees.

Not /opt/ml itself is mounted but the folders in it that SageMaker fills or takes: an image may have its code in
/opt/ml/code, as AWS's own examples do.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from spotproof import contract
from spotproof.engine import Engine
from spotproof.local.container_network import ContainerNetwork, engine_name
from spotproof.local.engine import choose_user
from spotproof.local.engine_commands import ContainerPlan, Mount, build_container
from spotproof.local.limits import HostLimits
from spotproof.local.processes import Stage
from spotproof.local.registry import ENV_MARK

__all__ = ["Container", "list_mounts"]

_MOUNTED: Final = ("input", contract.MODEL_DIR, contract.OUTPUT_DIR)


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """What makes a host a container."""

    engine: Engine
    owner: str
    """The state directory's id."""
    what: str
    limits: HostLimits
    network: ContainerNetwork | None
    """Open by the time that :meth:`build_stage` is called; None for the machine's own."""

    def build_stage(
        self,
        *,
        index: int,
        words: Sequence[str],
        ml_dir: Path,
        synced_dirs: Sequence[str],
        read_only_channels: Sequence[str],
        environment: Mapping[str, str],
    ) -> Stage:
        """Return how the container is made, started and removed."""
        engine, network = self.engine, self.network
        hostname = f"algo-{index + 1}"
        # Without a home a user that the image does not know has /, where it may not write.
        user = choose_user(engine)
        home = {"HOME": "/tmp"} if user is not None else {}
        mark = {ENV_MARK: f"{self.owner}/{self.what}"}
        seen = environment if network is None else network.seen_from_inside(environment)
        plan = ContainerPlan(
            name=engine_name(self.owner, self.what),
            owner=self.owner,
            what=self.what,
            hostname=hostname,
            words=words,
            mounts=list_mounts(ml_dir, synced_dirs, read_only_channels),
            environment={**home, **seen, **mark},
            hosts={hostname: "127.0.0.1"} if network is None else network.hosts(),
            limits=self.limits,
            shm_bytes=(self.limits.memory_bytes or _machine_memory_bytes()) // 2,  # as a tmpfs has by itself
            user=user,
            place=None if network is None else network.place(index),
            ulimits=engine.ulimits,
        )
        commands, given = build_container(engine, plan)
        settings = {**commands, "client_environment": engine.environment}
        return Stage(mode="engine", cwd=Path("/"), environment=given, settings=settings)


def list_mounts(ml_dir: Path, synced_dirs: Sequence[str], read_only_channels: Sequence[str]) -> list[Mount]:
    """Return what a container sees of its host's directory, outer folders first."""
    extra = [name for name in synced_dirs if not any(PurePosixPath(name).is_relative_to(top) for top in _MOUNTED)]
    channels = [f"{contract.INPUT_DATA_DIR}/{name}" for name in read_only_channels]
    names = [*_MOUNTED, *sorted(set(extra)), *channels]
    return [Mount(str(ml_dir / name), f"{contract.ML_ROOT}/{name}", name in channels) for name in names]


def _machine_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
