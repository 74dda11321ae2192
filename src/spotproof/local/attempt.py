"""One attempt of a job: its hosts, its sync agents, and what is taken from them at the end.

Verbs that touch S3 or wait block, and belong on a thread of their own; ``start``, ``terminate`` and ``kill`` return at
once.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spotproof import contract
from spotproof.local.artifacts import artifact_url, upload_tree
from spotproof.local.hosts import Host, HostMode, HostPlan
from spotproof.local.processes import Registry
from spotproof.local.removal import remove_tree
from spotproof.local.request import JobPlan
from spotproof.local.sync import SyncAgent, download
from spotproof.storage._s3 import S3Storage, split_s3_url

__all__ = ["Attempt", "Surroundings"]

_ABANDON_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a job finds around it."""

    jobs_dir: Path
    registry: Registry
    mode: HostMode
    open_bucket: Callable[[str], S3Storage]
    environment: Mapping[str, str]
    """How code in a job reaches S3."""
    sync_seconds: float = 0.5
    """Between two looks of the sync agent."""


class Attempt:
    """All hosts of one attempt, as one thing."""

    def __init__(
        self,
        number: int,
        plan: JobPlan,
        around: Surroundings,
        environment: Mapping[str, str],
        *,
        on_output: Callable[[int, bytes], object],
        on_exit: Callable[[int, int, str], None],
    ) -> None:
        self.number = number
        self._plan, self._around, self._environment = plan, around, environment
        self._directory = around.jobs_dir / plan.name / f"attempt-{number:04d}"
        self._on_output, self._on_exit = on_output, on_exit
        self._is_killed, self._is_prepared = threading.Event(), threading.Event()
        self._hosts = [self._make_host(index) for index in range(plan.rules.num_hosts)]
        self._agents: list[SyncAgent] = []

    def prepare(self) -> None:
        """Make the hosts, download inputs, restore checkpoints; the commands wait.

        Raises:
            InterruptedError: Killed meanwhile.
            EngineError: A host could not be made.
            OSError: S3 or the disk failed.
        """
        try:
            remove_tree(self._directory)
            for host in self._hosts:
                host.build()
                self._fill(host)
                self._check_killed()
                host.open()
                self._check_killed()
        finally:
            if self._is_killed.is_set():
                for host in self._hosts:
                    host.kill()
            self._is_prepared.set()

    def _fill(self, host: Host) -> None:
        """Bring what comes from S3."""
        for channel in self._plan.channels:
            bucket, prefix = split_s3_url(channel.s3_url)
            target = host.plan.ml_dir / contract.INPUT_DATA_DIR / channel.name
            download(self._around.open_bucket(bucket), prefix, target, is_abandoned=self._is_killed.is_set)
        if self._plan.checkpoint_url is not None and self._plan.checkpoint_dir is not None:
            bucket, prefix = split_s3_url(self._plan.checkpoint_url)
            folder = host.plan.ml_dir / self._plan.checkpoint_dir
            storage = self._around.open_bucket(bucket)
            agent = SyncAgent(folder, storage, prefix, poll_seconds=self._around.sync_seconds)
            self._agents.append(agent)
            if self._is_killed.is_set():
                agent.abandon()
            agent.restore()

    def _check_killed(self) -> None:
        if self._is_killed.is_set():
            raise InterruptedError("The attempt was killed while it was being prepared.")

    def start(self) -> None:
        """Let the commands run, and the agents."""
        for agent in self._agents:
            agent.start()
        for host in self._hosts:
            host.start()

    def terminate(self) -> None:
        """SIGTERM to every PID 1."""
        for host in self._hosts:
            host.terminate()

    def kill(self, *, keep_files: bool) -> None:
        """SIGKILL everything. Unless *keep_files*, the machines are lost: an upload under way is not completed."""
        self._is_killed.set()
        if not keep_files:
            for agent in list(self._agents):
                agent.abandon()
        for host in self._hosts:
            host.kill()

    def wait_gone(self) -> None:
        """Return when no process is left and no abandoned agent works any more."""
        self._is_prepared.wait()
        for host in self._hosts:
            if host.is_open:
                host.is_gone.wait()

    def wait_abandoned(self) -> None:
        """Return when the abandoned agents have let go, or after a patience: a hanging S3 must not hold up the job."""
        for agent in self._agents:
            agent.join(_ABANDON_PATIENCE_SECONDS)

    def upload(self, *, has_model: bool) -> None:
        """Drain the agents, then put model.tar.gz and output.tar.gz to S3.

        Raises:
            OSError: S3 or the disk failed.
        """
        for agent in self._agents:
            agent.drain()
        storage = self._around.open_bucket(split_s3_url(self._plan.output_url)[0])
        packages = [("output.tar.gz", contract.OUTPUT_DATA_DIR)]
        if has_model:
            packages.insert(0, ("model.tar.gz", contract.MODEL_DIR))
        for name, folder in packages:
            url = artifact_url(self._plan.output_url, self._plan.name, name)
            upload_tree([host.plan.ml_dir / folder for host in self._hosts], storage, url, self._directory)

    def discard(self) -> None:
        """Remove what the attempt left on its hosts; after :meth:`wait_gone`."""
        remove_tree(self._directory)
        try:
            self._directory.parent.rmdir()
        except OSError:  # the next attempt is there already
            pass

    def _make_host(self, index: int) -> Host:
        plan = self._plan
        host_plan = HostPlan(
            mode=self._around.mode,
            index=index,
            num_hosts=plan.rules.num_hosts,
            directory=self._directory / f"algo-{index + 1}",
            code_folder=plan.image.folder,
            command=plan.command,
            environment=self._environment,
            config_files=_config_files(plan, index),
            channels=[channel.name for channel in plan.channels],
            checkpoint_dir=plan.checkpoint_dir,
        )
        if plan.checkpoint_dir is not None:
            # In a plain process /opt/ml is elsewhere, and the file that names the directory has to say where.
            document = {"LocalPath": str(host_plan.base / plan.checkpoint_dir)}
            assert isinstance(host_plan.config_files, dict)
            host_plan.config_files[contract.CHECKPOINT_CONFIG_FILE] = document
        host: Host = Host(
            host_plan,
            f"{plan.name}/attempt-{self.number}/{host_plan.name}",
            self._around.registry,
            on_output=lambda data: self._on_output(index, data),
            on_exit=lambda code: self._on_exit(index, code, host.read_failure()),
        )
        return host


def _config_files(plan: JobPlan, index: int) -> dict[str, object]:
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
            "network_interface_name": "eth0",
        },
    }
