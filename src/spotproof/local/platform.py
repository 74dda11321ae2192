"""The local SageMaker as one object: started, found, and closed without a trace."""

import errno
import fcntl
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal

from spotproof.errors import EngineError, SpecError
from spotproof.local.api import Api, LogsApi
from spotproof.local.attempt import Surroundings
from spotproof.local.hosts import HostMode, find_namespace_obstacle
from spotproof.local.http import Application, open_server
from spotproof.local.images import Image
from spotproof.local.job import Job
from spotproof.local.logs import LogReader
from spotproof.local.processes import Registry, owner_id
from spotproof.local.removal import remove_tree
from spotproof.local.request import JobPlan
from spotproof.local.s3server import S3Server
from spotproof.schedule import parse_schedule
from spotproof.storage._s3 import S3Storage

__all__ = ["LocalSageMaker"]

_CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_log = logging.getLogger(__name__)


class LocalSageMaker:
    """SageMaker training jobs on this machine, over HTTP on 127.0.0.1, from ``__enter__`` to ``__exit__``.

    Everything is below *state_dir*: S3 objects and logs stay there, hosts and processes end with the server; if the
    server is killed, they end by themselves or, at the latest, when the next one starts there.

    Args:
        state_dir: One running server each.
        port: 0 takes a free one.
        images: What stands in for each training image, by its URI.
        reclaim: A schedule (``spotproof.schedule``) for every managed spot job. On-demand jobs are never reclaimed.
        hosts: ``namespace``, ``plain``, or ``auto``: namespaces where the kernel allows them.
        s3_endpoint: An S3 server to use in place of our own, with the credentials of the environment.
        spot_price_factor: Billable seconds of a spot job for one training second, above 0 and at most 1.
        capacity_wait_seconds: Between a reclaim and the next attempt.
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
    ) -> None:
        if not 0 < spot_price_factor <= 1:
            raise SpecError(f"spot_price_factor={spot_price_factor} is not a share.", do="Use more than 0, at most 1.")
        if capacity_wait_seconds < 0:
            raise SpecError(f"capacity_wait_seconds={capacity_wait_seconds} is below 0.", do="Use 0 or more seconds.")
        if hosts not in ("auto", "namespace", "plain"):
            raise SpecError(f"hosts={hosts!r} is unknown.", do="Use auto, namespace or plain.")
        self.state_dir = Path(state_dir).absolute()
        self.schedule = parse_schedule(reclaim)
        self._port, self._images, self._hosts = port, dict(images or {}), hosts
        self._s3_endpoint, self._spot_price_factor = s3_endpoint, spot_price_factor
        self._capacity_wait_seconds = capacity_wait_seconds
        self._lock_file: IO[str] | None = None
        self._closed = threading.Event()
        self._closing = threading.Lock()
        self._s3: S3Server | None = None
        self._api: Api | None = None
        self._server_thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where SageMaker and CloudWatch Logs answer."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def s3_url(self) -> str:
        """Where S3 answers."""
        if self._s3_endpoint is not None:
            return self._s3_endpoint
        assert self._s3 is not None, "not open"
        return self._s3.url

    def __enter__(self) -> "LocalSageMaker":
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._take_state_dir()
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        registry = Registry(self.state_dir / "processes", owner_id(self.state_dir))
        for what in registry.end_leftovers():
            _log.warning("ended %s, left by a server that was killed", what)
        remove_tree(self.state_dir / "jobs")
        if self._s3_endpoint is None:
            self._s3 = S3Server(self.state_dir / "s3", registry)
            self._s3.open()
        around = Surroundings(
            jobs_dir=self.state_dir / "jobs",
            registry=registry,
            mode=self._choose_mode(),
            open_bucket=self._open_bucket,
            environment=self._s3_environment(),
        )
        logs_dir = self.state_dir / "logs"

        def start_job(plan: JobPlan) -> Job:
            wait = self._capacity_wait_seconds
            job = Job(plan, around, self.schedule, logs_dir, capacity_wait_seconds=wait)
            job.start()
            return job

        self._api = Api(self._images, self._open_bucket, start_job, spot_price_factor=self._spot_price_factor)
        self._server = open_server(self._port, Application(self._api, LogsApi(LogReader(logs_dir))))
        self._port = self._server.server_port
        self._server_thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="http", daemon=True
        )
        self._server_thread.start()
        self._write_discovery()
        _log.info("local SageMaker at %s, S3 at %s, hosts: %s", self.url, self.s3_url, around.mode)

    def close(self) -> None:
        """End all jobs and processes; no process, mount or namespace is left when it returns. Harmless twice."""
        with self._closing:
            if self._lock_file is not None:
                (self.state_dir / "server.json").unlink(missing_ok=True)
            if self._server_thread is not None:
                self._server.shutdown()
                self._server_thread.join()
                self._server.server_close()
                self._server_thread = None
            for job in list(self._api.jobs.values()) if self._api is not None else ():
                job.close()
            if self._s3 is not None:
                self._s3.close()
            if self._lock_file is not None:
                remove_tree(self.state_dir / "jobs")
                self._lock_file.close()
                self._lock_file = None
            self._closed.set()

    def wait_closed(self) -> None:
        """Return when :meth:`close` has been called."""
        self._closed.wait()

    def environment(self) -> dict[str, str]:
        """Return what an AWS client needs in its environment to talk to this platform and to nothing else."""
        return {
            "AWS_ENDPOINT_URL_SAGEMAKER": self.url,
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": self.url,
            "AWS_DEFAULT_REGION": self._region,
            "AWS_EC2_METADATA_DISABLED": "true",
            # The token of a session with AWS itself does not go with the keys given here.
            **({"AWS_SESSION_TOKEN": ""} if "AWS_SESSION_TOKEN" in os.environ else {}),
            **self._s3_client_environment(),
        }

    @property
    def _region(self) -> str:
        return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    def _s3_client_environment(self) -> dict[str, str]:
        if self._s3 is not None:
            return self._s3.environment()
        given = {name: os.environ[name] for name in _CREDENTIALS if name in os.environ}
        return {"AWS_ENDPOINT_URL_S3": self.s3_url, **given}

    def _s3_environment(self) -> dict[str, str]:
        """What a job gets: the region under both of its names, as containers have it."""
        region = {"AWS_REGION": self._region, "AWS_DEFAULT_REGION": self._region, "AWS_EC2_METADATA_DISABLED": "true"}
        return {**self._s3_client_environment(), **region}

    def _open_bucket(self, bucket: str) -> S3Storage:
        return S3Storage(bucket, environment=self._s3_environment())

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
            "and SAGEMAKER_BASE_DIR and not at /opt/ml, and have no hostname algo-N, no /tmp and no PID 1 of their own",
            obstacle,
        )
        return "plain"

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
