"""The S3 server behind the local SageMaker: SeaweedFS, on loopback, in a process tree that dies with us."""

import contextlib
import logging
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from spotproof.errors import EngineError
from spotproof.local.keys import Keys
from spotproof.local.processes import Stage, Supervised
from spotproof.local.registry import Registry
from spotproof.local.removal import remove_tree
from spotproof.storage._s3 import S3Storage

__all__ = ["S3Server", "find_weed"]

_START_TIMEOUT_SECONDS: Final = 60.0
_PORT_TRIES: Final = 5
_ROLES: Final = ("master", "volume", "filer", "s3", "admin")
_GRPC_OFFSET: Final = 10000
"""SeaweedFS serves gRPC at each port + 10000."""
_log = logging.getLogger(__name__)


def find_weed() -> Path:
    """Return SeaweedFS's binary: beside this Python, as pip installs it, or on the PATH.

    Raises:
        EngineError: It is in neither place.
    """
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise EngineError(
            "The local platform has no S3 server:",
            why=f"there is no SeaweedFS binary `weed` beside {sys.executable} or on the PATH.",
            do="Run pip install 'spotproof[local]', or name a server of your own as s3_endpoint.",
        )
    return Path(found)


class S3Server:
    """SeaweedFS over one directory. What it has acknowledged survives its SIGKILL, so that is how it is stopped."""

    def __init__(self, folder: Path, registry: Registry, keys: Keys) -> None:
        self._folder, self._registry, self._keys = folder, registry, keys
        self.access_key, self.secret_key = keys.access, keys.secret
        self._process: Supervised | None = None
        self._log_path = folder / "weed.log"
        self._log: IO[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Start the server and return when it answers.

        Raises:
            EngineError: There is no binary, or it did not start.
        """
        weed = find_weed()
        self._folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(_PORT_TRIES):
            base = _find_ports()
            if self._try(weed, base):
                return
            self.close()
            _log.info("SeaweedFS did not start at port %d (try %d); see %s", base, attempt + 1, self._log_path)
        raise EngineError("The S3 server did not start:", why=_last_line(self._log_path), do=f"See {self._log_path}.")

    def _try(self, weed: Path, base: int) -> bool:
        ports = {role: base + index for index, role in enumerate(_ROLES)}
        self.port = ports["s3"]
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        scratch = self._folder / "tmp"
        remove_tree(scratch)
        scratch.mkdir()
        command = [
            *(str(weed), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-{role}.port={port}" for role, port in ports.items()),
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256",
            # A bucket takes at least one volume; the default, free disk space over volume size, may be a handful.
            "-volume.max=8192",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-s3.autoCreateBucket=false",  # AWS makes no bucket by itself either
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-admin.ui=false",
            "-webdav=false",
        ]
        environment = {
            **self._keys.environment(),
            "HOME": str(data),
            "TMPDIR": str(scratch),  # its own log files, beside what it prints
            "PATH": os.defpath,
            "GOMEMLIMIT": "1GiB",  # without it the server keeps some GB after large objects
        }
        log = self._log_path.open("wb", buffering=0)
        self._log = log
        self._process = Supervised(
            "s3",
            command,
            self._registry,
            on_output=log.write,
            on_exit=lambda code: _log.debug("SeaweedFS ended with code %d", code),
        )
        self._process.open(Stage(cwd=data, environment=environment, settings={"remove_at_end": _sockets(ports)}))
        self._process.start()
        return self._answers()

    def _answers(self) -> bool:
        """Wait until a signed request is answered, which is later than the port's opening."""
        storage = self.storage("spotproof-no-such-bucket")
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and not process.is_gone.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                try:
                    storage.check_bucket()
                except FileNotFoundError:  # the right answer for a bucket that is not there
                    return True
                except OSError:
                    pass
            process.is_gone.wait(0.02)
        return False

    def storage(self, bucket: str) -> S3Storage:
        """Return *bucket* as a storage."""
        return S3Storage(bucket, environment=self.environment())

    def make_bucket(self, name: str) -> None:
        """Make a bucket if there is none of that name.

        Raises:
            EngineError: The server refused.
        """
        url = f"{self.url}/{name}"
        request = AWSRequest("PUT", url, data=b"")
        S3SigV4Auth(Credentials(self._keys.access, self._keys.secret), "s3", "us-east-1").add_auth(request)
        answer = urllib3.request("PUT", url, headers=dict(request.headers), body=b"", timeout=30)
        if answer.status not in (200, 409):
            raise EngineError(f"The S3 server did not make bucket {name}:", why=f"it answered {answer.status}.")

    def environment(self) -> dict[str, str]:
        """Return what a client needs to reach it."""
        return {"AWS_ENDPOINT_URL_S3": self.url, **self._keys.environment()}

    def close(self) -> None:
        """Kill the server; nothing it acknowledged is lost. Harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.is_gone.wait(_START_TIMEOUT_SECONDS)
            self._process = None
        if self._log is not None:
            self._log.close()


def _find_ports() -> int:
    """Return a base from which the ports and their gRPC twins are free now, outside Linux's ephemeral range.

    Another process may take one before SeaweedFS does; then it ends, and the caller tries again.
    """
    for _ in range(200):
        base = random.SystemRandom().randrange(10500, 20400, 10)
        ports = [base + index + offset for index in range(len(_ROLES)) for offset in (0, _GRPC_OFFSET)]
        if all(_is_free(port) for port in ports):
            return base
    raise EngineError("No free ports were found for the S3 server.", do="Close some programs, or name an s3_endpoint.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _sockets(ports: Mapping[str, int]) -> list[str]:
    """Return the Unix sockets that SeaweedFS puts into /tmp whatever it is told, and leaves there when killed."""
    names = [f"/tmp/seaweedfs-{role}-{port}.sock" for role, port in ports.items()]
    return names + [f"/tmp/seaweedfs-{role}-grpc-{port + _GRPC_OFFSET}.sock" for role, port in ports.items()]


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it wrote no log."
