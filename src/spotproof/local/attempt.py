"""One attempt of a job: its hosts and their network, its sync agents, and what is taken from them at the end.

Verbs that touch S3 or wait block, and belong on a thread of their own; ``start``, ``terminate`` and ``kill`` return at
once.
"""

import threading
from collections.abc import Callable, Mapping

from spotproof import contract
from spotproof.errors import EngineError
from spotproof.local.artifacts import artifact_url, find_folders, upload_files, upload_tree
from spotproof.local.fault_desk import AgentFaults
from spotproof.local.hosts import Host
from spotproof.local.images import EngineImage
from spotproof.local.inputs import fill_channel
from spotproof.local.removal import remove_tree
from spotproof.local.request import JobPlan
from spotproof.local.staging import Surroundings, make_environment, make_network, plan_host
from spotproof.local.sync import SyncAgent
from spotproof.storage._s3 import split_s3_url

__all__ = ["Attempt"]

_ABANDON_PATIENCE_SECONDS = 10.0


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
        self._plan, self._around = plan, around
        self._directory = around.jobs_dir / plan.name / f"attempt-{number:04d}"
        self._on_output, self._on_exit = on_output, on_exit
        self._is_killed, self._is_prepared = threading.Event(), threading.Event()
        what = f"{plan.name}/attempt-{number}/network"
        self._network = make_network(what, plan, around, environment, on_lost=self._kill_hosts)
        self._environment = make_environment(plan, around, self._network, environment)
        self._hosts = [self._make_host(index) for index in range(plan.rules.num_hosts)]
        self._agents: list[list[SyncAgent]] = [[] for _ in self._hosts]

    def prepare(self) -> None:
        """Make the hosts, download inputs, restore checkpoints; the commands wait.

        Raises:
            InterruptedError: Killed meanwhile.
            EngineError: A host could not be made.
            OSError: S3 or the disk failed.
        """
        try:
            self._check_engine()
            remove_tree(self._directory)
            if self._network is not None:
                self._network.open()
                self._check_killed()
            for host in self._hosts:
                host.build()
                self._fill(host)
                self._check_killed()
                host.open()
                self._check_killed()
        finally:
            if self._is_killed.is_set():
                self._kill_hosts()
            self._is_prepared.set()

    def _fill(self, host: Host) -> None:
        """Bring what comes from S3."""
        plan = self._plan
        for channel in plan.channels:
            fill_channel(
                channel,
                host.plan.ml_dir / contract.INPUT_DATA_DIR / channel.name,
                self._around.open_bucket,
                host=host.plan.index,
                num_hosts=plan.rules.num_hosts,
                is_abandoned=self._is_killed.is_set,
            )
        checkpoints, _ = self._make_agents(host)
        if checkpoints is not None:
            checkpoints.restore()

    @property
    def is_prepared(self) -> bool:
        """Whether :meth:`prepare` has come to an end here, in this server."""
        return self._is_prepared.is_set()

    @property
    def is_on_disk(self) -> bool:
        """Whether every host's directory is there."""
        return all(host.plan.ml_dir.is_dir() for host in self._hosts)

    def find_again(self, since: float) -> None:
        """Take over what an earlier server's attempt left, instead of :meth:`prepare`; :meth:`upload` is next.

        Args:
            since: When its commands began, in seconds since 1970.
        """
        for host in self._hosts:
            for agent in self._make_agents(host):
                if agent is not None:
                    agent.find_again(since)
        self._is_prepared.set()

    def _make_agents(self, host: Host) -> tuple[SyncAgent | None, SyncAgent | None]:
        """Return what mirrors the host's checkpoints, and its TensorBoard files, which are never read back."""
        plan, index = self._plan, host.plan.index
        faults = self._around.faults.agent(plan.name, self.number, index)
        checkpoints = self._make_agent(host, plan.checkpoint_dir, plan.checkpoint_url, faults)
        return checkpoints, self._make_agent(host, plan.tensorboard_dir, plan.tensorboard_url, AgentFaults.none())

    def _make_agent(self, host: Host, folder: str | None, url: str | None, faults: AgentFaults) -> SyncAgent | None:
        if folder is None or url is None:
            return None
        bucket, prefix = split_s3_url(url)
        storage, seconds = self._around.open_bucket(bucket), self._around.sync_seconds
        agent = SyncAgent(host.plan.ml_dir / folder, storage, prefix, poll_seconds=seconds, faults=faults)
        self._agents[host.plan.index].append(agent)
        if self._is_killed.is_set():
            agent.abandon()
        return agent

    def _check_engine(self) -> None:
        if isinstance(self._plan.image, EngineImage) and self._around.engine is None:
            raise EngineError(
                f"The image of {self._plan.name} can't be run:",
                why="it is one of a container engine's, and the platform has been started again without one.",
                do="Start the engine, and the platform with --engine auto.",
            )

    def _check_killed(self) -> None:
        if self._is_killed.is_set():
            raise InterruptedError("The attempt was killed while it was being prepared.")

    def start(self) -> None:
        """Let the commands run, and the agents."""
        for agent in self._all_agents():
            agent.start()
        for host in self._hosts:
            host.start()

    def terminate(self) -> None:
        """SIGTERM to every PID 1."""
        for agent in self._all_agents():
            agent.notice()
        for host in self._hosts:
            host.terminate()

    def kill(self, *, keep_files: bool) -> None:
        """SIGKILL everything. Unless *keep_files*, the machines are lost: an upload under way is not completed."""
        self._is_killed.set()
        if not keep_files:
            for agent in self._all_agents():
                agent.abandon()
        self._kill_hosts()

    def lose(self, index: int) -> None:
        """SIGKILL one host, whose machine is lost; the others go on until somebody ends them."""
        for agent in list(self._agents[index]):
            agent.abandon()
        self._hosts[index].kill()

    def _kill_hosts(self) -> None:
        for host in self._hosts:
            host.kill()
        if self._network is not None:
            self._network.kill()

    def _all_agents(self) -> list[SyncAgent]:
        return [agent for agents in self._agents for agent in list(agents)]

    def wait_gone(self) -> None:
        """Return when no process is left and no abandoned agent works any more."""
        self._is_prepared.wait()
        for host in self._hosts:
            if host.is_open:
                host.is_gone.wait()
        if self._network is not None and self._network.is_open:
            self._network.is_gone.wait()

    def wait_abandoned(self) -> None:
        """Return when the abandoned agents have let go, or after a patience: a hanging S3 must not hold up the job."""
        for agent in self._all_agents():
            agent.join(_ABANDON_PATIENCE_SECONDS)

    def upload(self, *, has_model: bool) -> None:
        """Drain the agents, then put model and output to S3.

        Raises:
            OSError: S3 or the disk failed.
        """
        plan = self._plan
        for agent in self._all_agents():
            agent.drain()
        storage = self._around.open_bucket(split_s3_url(plan.output_url)[0])
        packages = [("output.tar.gz", "data/", contract.OUTPUT_DATA_DIR)]
        if has_model:
            packages.insert(0, ("model.tar.gz", "model/", contract.MODEL_DIR))
        for archive, prefix, folder in packages:
            folders = find_folders((host.plan.ml_dir for host in self._hosts), folder)
            if plan.has_archives:
                upload_tree(folders, storage, artifact_url(plan.output_url, plan.name, archive), self._directory)
            else:
                upload_files(folders, storage, artifact_url(plan.output_url, plan.name, prefix))

    def discard(self) -> None:
        """Remove what the attempt left on its hosts; after :meth:`wait_gone`."""
        remove_tree(self._directory)
        try:
            self._directory.parent.rmdir()
        except OSError:  # the next attempt is there already
            pass

    def _make_host(self, index: int) -> Host:
        what = f"{self._plan.name}/attempt-{self.number}/algo-{index + 1}"
        host: Host = Host(
            plan_host(index, what, self._directory, self._plan, self._around, self._network, self._environment),
            what,
            self._around.registry,
            on_output=lambda data: self._on_output(index, data),
            on_exit=lambda code: self._on_exit(index, code, host.read_failure()),
        )
        return host
