"""The local SageMaker as one object: started, found, and closed without a trace."""

import errno
import fcntl
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal

from spotproof.engine import Engine, EngineChoice, find_engine, parse_engine
from spotproof.errors import EngineError, SpecError
from spotproof.local.api import Api
from spotproof.local.clients import default_bucket, region_of
from spotproof.local.controls import Controls
from spotproof.local.encryption import WithoutEncryption
from spotproof.local.engine import end_leftovers
from spotproof.local.fault_desk import FaultDesk
from spotproof.local.hosts import HostMode, find_namespace_obstacle, find_network_obstacle
from spotproof.local.http import Application
from spotproof.local.http_server import HttpServer
from spotproof.local.identity import Identity
from spotproof.local.images import Image
from spotproof.local.jobs import Jobs
from spotproof.local.keys import Keys, read_or_make_keys
from spotproof.local.limits import CgroupPlace, HostLimits, find_places, parse_memory
from spotproof.local.logs import LogReader
from spotproof.local.logs_api import LogsApi
from spotproof.local.metrics_api import MetricsApi
from spotproof.local.metrics_wire import MetricsWire
from spotproof.local.registry import Registry, owner_id
from spotproof.local.s3_faults import S3Faults, parse_s3_faults
from spotproof.local.s3proxy import S3Proxy
from spotproof.local.s3server import S3Server
from spotproof.local.shelf import ImageShelf
from spotproof.local.staging import Surroundings
from spotproof.local.sync_faults import parse_sync_faults
from spotproof.local.validate import load_models
from spotproof.schedule import Schedule, parse_schedule
from spotproof.storage._s3 import S3Storage
from spotproof.userdir import user_folder

__all__ = ["DEFAULT_CAPACITY", "LocalSageMaker"]

DEFAULT_CAPACITY: Final = max(8, os.cpu_count() or 1)
"""Hosts. Jobs mostly wait for one another on a small machine, but a handful of hosts a job should fit anywhere."""

_CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_log = logging.getLogger(__name__)


class LocalSageMaker:
    """SageMaker training jobs on this machine, over HTTP on 127.0.0.1, from ``__enter__`` to ``__exit__``.

    Everything is below *state_dir*: jobs, S3 objects and logs stay there, hosts and processes end with the server; if
    the server is killed, they end by themselves or, at the latest, when the next one starts there. The next one finds
    all jobs again, however this one ended: those that ran have lost their machines, and start again from S3.

    Args:
        state_dir: One running server each.
        port: 0 takes a free one.
        images: What stands in for each training image, by its URI.
        reclaim: A schedule (``spotproof.schedule``) for every managed spot job. On-demand jobs are never reclaimed.
        hosts: ``namespace``, ``plain``, or ``auto``: namespaces where the kernel allows them.
        s3_endpoint: An S3 server to use in place of our own, with the credentials of the environment.
        spot_price_factor: Billable seconds of a spot job for one training second, above 0 and at most 1.
        capacity_wait_seconds: Between a reclaim and the next attempt, where the schedule does not say (``@away``).
        capacity: Hosts that jobs share; those that find none free wait, first come, first served. A job that needs
            more is refused.
        sync_faults: What goes wrong with the agents that mirror checkpoints (``spotproof.local.sync_faults``).
        s3_faults: What goes wrong with requests to S3 (``spotproof.local.s3_faults``).
        host_memory: Bytes that each host may use, or a text as ``4GiB``; None for as much as there is.
        host_cpus: CPUs that each host may use, such as 1 or 0.5; None for all.
        engine: The container engine that runs images which are not in *images*: ``docker``, ``podman``, ``auto`` for
            the first of the two that answers, or ``none``.
    """

    def __init__(
        self,
        state_dir: str | os.PathLike[str],
        port: int = 0,
        images: Mapping[str, Image] | None = None,
        reclaim: str = "none",
        hosts: Literal["auto", "namespace", "plain"] = "auto",
        s3_endpoint: str | None = None,
        spot_price_factor: float = 0.3,
        capacity_wait_seconds: float = 0.5,
        capacity: int = DEFAULT_CAPACITY,
        sync_faults: str = "none",
        s3_faults: str = "none",
        host_memory: int | str | None = None,
        host_cpus: float | None = None,
        engine: EngineChoice = "none",
    ) -> None:
        if not 0 < spot_price_factor <= 1:
            raise SpecError(f"spot_price_factor={spot_price_factor} is not a share.", do="Use more than 0, at most 1.")
        if capacity_wait_seconds < 0:
            raise SpecError(f"capacity_wait_seconds={capacity_wait_seconds} is below 0.", do="Use 0 or more seconds.")
        if hosts not in ("auto", "namespace", "plain"):
            raise SpecError(f"hosts={hosts!r} is unknown.", do="Use auto, namespace or plain.")
        if capacity < 1:
            raise SpecError(f"capacity={capacity} leaves no host to run on.", do="Use 1 or more.")
        for image in (images or {}).values():
            image.check_folder()
        memory_bytes = parse_memory(host_memory) if isinstance(host_memory, str) else host_memory
        self._limits = HostLimits(memory_bytes=memory_bytes, cpus=host_cpus)
        self.state_dir = Path(state_dir).absolute()
        self._schedule = parse_schedule(reclaim)
        self.faults = FaultDesk(parse_sync_faults(sync_faults), parse_s3_faults(s3_faults))
        self._engine_choice = parse_engine(engine)
        self.engine: Engine | None = None
        """What runs real images; found when the platform opens."""
        self._port, self._images, self._hosts = port, dict(images or {}), hosts
        self._s3_endpoint, self._spot_price_factor = s3_endpoint, spot_price_factor
        self._capacity_wait_seconds, self._capacity = capacity_wait_seconds, capacity
        self._lock_file: IO[str] | None = None
        self._closed = threading.Event()
        self._closing = threading.Lock()
        self._registry: Registry | None = None
        self._s3: S3Server | None = None
        self._jobs: Jobs | None = None
        # A client costs 10 ms of processor time, and a job of one host needs four.
        self._make_bucket = lru_cache(maxsize=64)(self._make_bucket_at)
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        """Where all services answer, S3 among them."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def s3_url(self) -> str:
        """Where our agents reach S3."""
        return self.url if self.faults.weather.faults.faults else self._s3_server_url

    @property
    def _clients_s3_url(self) -> str:
        """Where jobs and other clients do. Our own server does not know all that they may ask for (``encryption``)."""
        return self.s3_url if self._s3 is None else self.url

    @property
    def _s3_server_url(self) -> str:
        if self._s3_endpoint is not None:
            return self._s3_endpoint
        assert self._s3 is not None, "not open"
        return self._s3.url

    def __enter__(self) -> "LocalSageMaker":
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            self._take_state_dir()
        except OSError as error:
            raise EngineError(
                f"The local platform can't keep its state in {self.state_dir}:",
                why=f"{error.strerror}.",
                do="Name a folder that can be written: --state-dir FOLDER.",
            ) from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        self._registry = registry = Registry(self.state_dir / "processes", owner_id(self.state_dir))
        for what in registry.end_leftovers():
            _log.warning("ended %s, left by a server that was killed", what)
        self.engine = find_engine(self._engine_choice)
        if self.engine is not None:
            for name in end_leftovers(self.engine, registry.owner):
                _log.warning("removed %s from %s, left by a server that was killed", name, self.engine)
        if self._s3_endpoint is None:
            self._s3 = S3Server(self.state_dir / "s3", registry, read_or_make_keys(user_folder(os.environ)))
            self._s3.open()
            self._s3.make_bucket(default_bucket(self._region))
        mode = self._choose_mode()
        around = Surroundings(
            jobs_dir=self.state_dir / "jobs",
            registry=registry,
            mode=mode,
            engine=self.engine,
            has_networks=mode == "namespace" and _has_networks(),
            limits=self._limits,
            cgroup_places=self._find_cgroup_places(),
            open_bucket=self._open_bucket,
            read_environment=lambda: {"AWS_ENDPOINT_URL": self.url, **self._s3_environment(self._clients_s3_url)},
            faults=self.faults,
        )
        self._jobs = Jobs(
            self.state_dir,
            around,
            self._schedule,
            num_hosts=self._capacity,
            capacity_wait_seconds=self._capacity_wait_seconds,
            spot_price_factor=self._spot_price_factor,
        )
        api = Api(
            ImageShelf(self._images, self.engine),
            self._open_bucket,
            self._jobs,
            spot_price_factor=self._spot_price_factor,
        )
        reader = LogReader(self.state_dir / "logs")
        metrics = MetricsWire(MetricsApi(self._jobs, reader))
        controls = Controls(api, self.faults, self.set_s3_faults)
        s3 = WithoutEncryption(S3Proxy(self._s3_server_url, self.faults.weather), self.keys)
        load_models()
        self._server = HttpServer(
            self._port, Application(api, LogsApi(reader), metrics, Identity(self.keys), controls, s3)
        )
        self._port = self._server.port
        self._jobs.open()
        self._server.start()
        self._write_discovery()
        _log.info("local SageMaker at %s, S3 at %s, hosts: %s", self.url, self.s3_url, around.mode)

    def close(self) -> None:
        """End all processes; no process, mount or namespace is left when it returns. Harmless twice."""
        with self._closing:
            if self._lock_file is not None:
                (self.state_dir / "server.json").unlink(missing_ok=True)
            if self._server is not None:
                self._server.close()
                self._server = None
            if self._jobs is not None:
                self._jobs.close()
                self._jobs = None
            if self._s3 is not None:
                self._s3.close()
            if self._registry is not None:
                self._registry.close()
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None
            self._closed.set()

    def set_reclaims(self, schedule: Schedule) -> None:
        """Let spot jobs that are created from now on be reclaimed as *schedule* says."""
        assert self._jobs is not None, "not open"
        self._jobs.set_schedule(schedule)

    def set_s3_faults(self, faults: S3Faults) -> None:
        """Let *faults* happen to S3 from now on.

        Agents of attempts that run already keep their way to S3, as do jobs where S3 is not our own server.
        """
        self.faults.weather.set(faults)
        if self._server is not None:
            self._write_discovery()

    def wait_closed(self) -> None:
        """Return when :meth:`close` has been called."""
        self._closed.wait()

    def environment(self) -> dict[str, str]:
        """Return what an AWS client needs in its environment to talk to this platform and to nothing else.

        Endpoints are named one by one as well: those that a shell has would win.
        """
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.url,
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": self.url,
            "AWS_DEFAULT_REGION": self._region,
            "AWS_EC2_METADATA_DISABLED": "true",
            # The token of a session with AWS itself does not go with the keys given here.
            **({"AWS_SESSION_TOKEN": ""} if "AWS_SESSION_TOKEN" in os.environ else {}),
            **self._s3_client_environment(self._clients_s3_url),
        }

    @property
    def keys(self) -> Keys:
        """With which clients sign."""
        given = self._s3_client_environment(self._clients_s3_url)
        return Keys(given.get("AWS_ACCESS_KEY_ID", ""), given.get("AWS_SECRET_ACCESS_KEY", ""))

    @property
    def _region(self) -> str:
        return region_of(os.environ)

    def _s3_client_environment(self, s3_url: str) -> dict[str, str]:
        if self._s3 is not None:
            return {**self._s3.environment(), "AWS_ENDPOINT_URL_S3": s3_url}
        given = {name: os.environ[name] for name in _CREDENTIALS if name in os.environ}
        return {"AWS_ENDPOINT_URL_S3": s3_url, **given}

    def _s3_environment(self, s3_url: str) -> dict[str, str]:
        """What a storage needs: the region under both of its names, as containers have it."""
        region = {"AWS_REGION": self._region, "AWS_DEFAULT_REGION": self._region, "AWS_EC2_METADATA_DISABLED": "true"}
        return {**self._s3_client_environment(s3_url), **region}

    def _open_bucket(self, bucket: str) -> S3Storage:
        return self._make_bucket(bucket, self.s3_url)

    def _make_bucket_at(self, bucket: str, s3_url: str) -> S3Storage:
        return S3Storage(bucket, environment=self._s3_environment(s3_url))

    def _choose_mode(self) -> HostMode:
        if self._hosts == "plain":
            return "plain"
        obstacle = find_namespace_obstacle()
        if obstacle is None:
            return "namespace"
        if self._hosts == "namespace":
            raise EngineError(
                "Hosts can't have namespaces here:", why=f"{obstacle}.", do="Use hosts=auto or hosts=plain."
            )
        _log.warning(
            "hosts are plain processes, because namespaces can't be had (%s): jobs find their directories through SM_* "
            "and SAGEMAKER_BASE_DIR and not at /opt/ml, and have no hostname algo-N, no network, no /tmp and no PID 1 "
            "of their own; see docs/fidelity.md",
            obstacle,
        )
        return "plain"

    def _find_cgroup_places(self) -> Sequence[CgroupPlace]:
        try:
            return find_places(self._limits.controllers)
        except EngineError as error:
            _log.warning("hosts have no limits of memory or CPUs, though they were asked for. %s", error)
            return ()

    def _take_state_dir(self) -> None:
        """Hold a lock for our life; the kernel lets go of it however we end."""
        file = (self.state_dir / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            file.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise EngineError(f"{self.state_dir} can't be locked:", why=f"{error.strerror}.") from error
            raise EngineError(
                f"{self.state_dir} is in use:",
                why=f"the local platform with process id {pid} runs there.",
                do="Stop it, or choose another state directory.",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._lock_file = file

    def _write_discovery(self) -> None:
        """Say where we are. Readable by the owner only: the S3 key is in it."""
        document = {
            "pid": os.getpid(),
            "url": self.url,
            "s3_url": self.s3_url,
            "environment": self.environment(),
        }
        staged = self.state_dir / "server.json.staged"
        staged.unlink(missing_ok=True)
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(document, file, indent=1)
        staged.replace(self.state_dir / "server.json")


def _has_networks() -> bool:
    obstacle = find_network_obstacle()
    if obstacle is not None:
        _log.warning(
            "several hosts of a job share this machine's network, and EnableNetworkIsolation isolates nothing, because "
            "a network of their own can't be had (%s)",
            obstacle,
        )
    return obstacle is None
