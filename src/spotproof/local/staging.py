"""What the hosts of an attempt are to be: their network, their environment, their files. Nothing is made here."""

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spotproof import contract
from spotproof.engine import Engine
from spotproof.local.container_network import ContainerNetwork
from spotproof.local.containers import Container
from spotproof.local.fault_desk import FaultDesk
from spotproof.local.hosts import HostMode, HostPlan
from spotproof.local.images import EngineImage
from spotproof.local.limits import CgroupPlace, HostLimits, cgroup_name, make_cgroups
from spotproof.local.network import INTERFACE, Network, find_machine_interface, plan_network
from spotproof.local.registry import Registry
from spotproof.local.request import JobPlan
from spotproof.storage._s3 import S3Storage

__all__ = ["Surroundings", "make_environment", "make_network", "plan_host"]

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a job finds around it."""

    jobs_dir: Path
    registry: Registry
    mode: HostMode
    """Of hosts whose image is a folder and a command."""
    engine: Engine | None = None
    """What runs real images."""
    has_networks: bool = False
    """Whether hosts can have a network of their own."""
    limits: HostLimits = field(default_factory=HostLimits)
    cgroup_places: Sequence[CgroupPlace] = ()
    """Where the limits can be set."""
    open_bucket: Callable[[str], S3Storage]
    read_environment: Callable[[], Mapping[str, str]]
    """How code in a job reaches S3, as it is now."""
    faults: FaultDesk
    sync_seconds: float = 0.5
    """Between two looks of the sync agent."""


def make_network(
    what: str,
    plan: JobPlan,
    around: Surroundings,
    environment: Mapping[str, str],
    *,
    on_lost: Callable[[], object],
) -> Network | ContainerNetwork | None:
    """Return the network that the hosts get: one host alone shares the machine's, unless it is to be isolated."""
    num_hosts = plan.rules.num_hosts
    if num_hosts == 1 and not plan.is_isolated:
        return None
    if isinstance(plan.image, EngineImage):
        if around.engine is None:
            return None
        return ContainerNetwork(
            what,
            around.engine,
            num_hosts,
            environment,
            around.registry,
            is_isolated=plan.is_isolated,
            on_lost=on_lost,
        )
    if not around.has_networks:
        if plan.is_isolated:
            _log.warning("job %s is NOT isolated from the network: hosts here have none of their own", plan.name)
        return None
    return Network(
        what,
        plan_network(num_hosts, environment, is_isolated=plan.is_isolated),
        around.registry,
        on_lost=on_lost,
    )


def make_environment(
    plan: JobPlan,
    around: Surroundings,
    network: Network | ContainerNetwork | None,
    environment: Mapping[str, str],
) -> dict[str, str]:
    """Return the variables of all hosts; what the request says wins over what the network needs."""
    given = dict(environment)
    if plan.is_isolated:  # source: developer guide, "Run training containers in internet-free mode"
        asked = plan.request.get("Environment", {})
        given = {name: v for name, v in given.items() if name in asked or not name.startswith(_CREDENTIALS)}
    if network is not None:
        return {**network.environment(), **given}
    if plan.rules.num_hosts > 1 and around.mode == "plain":
        # The hosts' names are nobody's here, and a port is free for one job only.
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_find_free_port()), **given}
    return given


def plan_host(
    index: int,
    what: str,
    directory: Path,
    plan: JobPlan,
    around: Surroundings,
    network: Network | ContainerNetwork | None,
    environment: Mapping[str, str],
) -> HostPlan:
    """Return what one host of an attempt is to be."""
    owner = around.registry.owner
    container = None
    if around.engine is not None and isinstance(plan.image, EngineImage):
        assert not isinstance(network, Network)
        container = Container(engine=around.engine, owner=owner, what=what, limits=around.limits, network=network)
    is_real = isinstance(plan.image, EngineImage)
    config_files = _config_files(plan, index, INTERFACE if network is not None else find_machine_interface())
    host_plan = HostPlan(
        mode="container" if is_real else around.mode,
        index=index,
        num_hosts=plan.rules.num_hosts,
        directory=directory / f"algo-{index + 1}",
        code_folder=None if isinstance(plan.image, EngineImage) else plan.image.folder,
        command=plan.command,
        environment=environment,
        config_files=config_files,
        channels=[channel.name for channel in plan.channels],
        read_only_channels=[channel.name for channel in plan.channels if channel.is_read_only],
        synced_dirs=[folder for folder in (plan.checkpoint_dir, plan.tensorboard_dir) if folder is not None],
        checkpoint_dir=plan.checkpoint_dir,
        network=network if isinstance(network, Network) else None,
        cgroups=[] if is_real else make_cgroups(around.limits, around.cgroup_places, cgroup_name(owner, what)),
        container=container,
    )
    if plan.checkpoint_dir is not None:
        # In a plain process /opt/ml is elsewhere, and the file that names the directory has to say where.
        config_files[contract.CHECKPOINT_CONFIG_FILE] = {"LocalPath": str(host_plan.base / plan.checkpoint_dir)}
    return host_plan


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _config_files(plan: JobPlan, index: int, interface: str) -> dict[str, object]:
    """Source: resourceconfig.json as jobs print it; keys and order of `hosts` as there (lexicographic)."""
    request = plan.request
    instance_type = request["ResourceConfig"]["InstanceType"]
    hosts: Sequence[str] = [f"algo-{number + 1}" for number in range(plan.rules.num_hosts)]
    group = {"instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": hosts}
    return {
        contract.HYPERPARAMETERS_FILE: request.get("HyperParameters", {}),
        contract.INPUT_DATA_CONFIG_FILE: {channel.name: dict(channel.config) for channel in plan.channels},
        contract.RESOURCE_CONFIG_FILE: {
            "current_host": hosts[index],
            "current_instance_type": instance_type,
            "current_group_name": "homogeneousCluster",
            "hosts": sorted(hosts),
            "instance_groups": [group],
            "network_interface_name": interface,
        },
    }
