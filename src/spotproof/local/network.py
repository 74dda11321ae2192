"""A network of their own for the hosts of one attempt, and what leads out of it.

Each host has an interface ``eth0`` with an address of its own, and finds the others by name. There is no route out of
it. Unless the job is isolated, the S3 server on this machine's loopback is found at the same port of the host's own,
and an HTTP proxy, which the usual variables name, leads to the rest of the world.
"""

import ipaddress
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from spotproof.errors import EngineError
from spotproof.local.processes import Stage, Supervised
from spotproof.local.registry import Registry

__all__ = ["INTERFACE", "Network", "NetworkPlan", "find_machine_interface", "local_endpoints", "plan_network"]

INTERFACE: Final = "eth0"
"""Source: resourceconfig.json as jobs print it."""
_SUBNET: Final = ipaddress.ip_network("10.0.0.0/16")
_GATEWAY: Final = _SUBNET[1]
_FIRST_HOST: Final = 257
"""10.0.1.1 is algo-1."""
_PROXY_PORT: Final = 39128
_OPEN_TIMEOUT_SECONDS: Final = 60.0
_LOOPBACK: Final = ("127.0.0.1", "localhost")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPlan:
    """What a network is to be."""

    addresses: Sequence[str]
    """One a host."""
    forwards: Sequence[tuple[int, str, int]]
    """Port of each host's 127.0.0.1, and host and port that it leads to, as seen from the machine."""
    proxy_port: int | None

    def environment(self) -> dict[str, str]:
        """Return what a job needs to find the way out."""
        if self.proxy_port is None:
            return {}
        url = f"http://127.0.0.1:{self.proxy_port}"
        names = [f"algo-{index + 1}" for index in range(len(self.addresses))]
        direct = ",".join([*_LOOPBACK, "::1", *names, *self.addresses])
        values = {"HTTP_PROXY": url, "HTTPS_PROXY": url, "NO_PROXY": direct}
        return {**values, **{name.lower(): value for name, value in values.items()}}


def plan_network(num_hosts: int, environment: Mapping[str, str], *, is_isolated: bool) -> NetworkPlan:
    """Return the network of a job that is to find the AWS endpoints that *environment* names."""
    return NetworkPlan(
        addresses=[str(_SUBNET[_FIRST_HOST + index]) for index in range(num_hosts)],
        forwards=[] if is_isolated else local_endpoints(environment),
        proxy_port=None if is_isolated else _PROXY_PORT,
    )


def local_endpoints(environment: Mapping[str, str]) -> list[tuple[int, str, int]]:
    """Return the AWS endpoints on this machine's loopback that *environment* names, as :attr:`NetworkPlan.forwards`."""
    found = set()
    for name, value in environment.items():
        try:
            url = urlsplit(value if name.startswith("AWS_ENDPOINT_URL") else "")
            if url.scheme in ("http", "https") and url.hostname in _LOOPBACK and url.port:
                found.add((url.port, url.hostname, url.port))
        except ValueError:
            continue
    return sorted(found)


def find_machine_interface() -> str:
    """Return the interface of this machine's default route, for hosts that share its network; else loopback."""
    try:
        rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    except OSError:
        return "lo0" if sys.platform == "darwin" else "lo"
    return next((row[0] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"), "lo")


class Network:
    """The network of one attempt's hosts, from :meth:`open` to :meth:`kill`. It ends with the server in any case."""

    def __init__(self, what: str, plan: NetworkPlan, registry: Registry, *, on_lost: Callable[[], object]) -> None:
        self.plan = plan
        self._on_lost = on_lost
        self._output = b""
        self._answered = threading.Event()
        self._is_killed = False
        self._holder: tuple[int, bool, list[int]] | None = None
        document = {
            "addresses": list(plan.addresses),
            "gateway": str(_GATEWAY),
            "prefix_bits": _SUBNET.prefixlen,
            "forwards": list(plan.forwards),
            "proxy_port": plan.proxy_port,
        }
        script = str(Path(__file__).with_name("_network.py"))
        command = [sys.executable, "-I", "-S", script, json.dumps(document)]
        self._process = Supervised(what, command, registry, on_output=self._read, on_exit=self._exited)
        self.is_gone = self._process.is_gone
        self.is_open = False

    def open(self) -> None:
        """Make the network.

        Raises:
            EngineError: It could not be made, or was killed meanwhile.
        """
        self.is_open = True
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
        self._process.open(Stage(cwd=Path("/"), environment=kept))
        self._process.start()
        is_in_time = self._answered.wait(_OPEN_TIMEOUT_SECONDS)
        if self._holder is None:
            self.kill()
            self.is_gone.wait(_OPEN_TIMEOUT_SECONDS)
            text = self._output.decode(errors="replace").strip().removeprefix("error ")
            reason = (text.splitlines() or ["it ended"])[-1] if is_in_time else "it did not answer"
            raise EngineError(f"{self._process.what} could not be set up:", why=f"{reason}.")

    def environment(self) -> dict[str, str]:
        """Return what a job needs to find the way out."""
        return self.plan.environment()

    def host_settings(self, index: int) -> dict[str, Any]:
        """Return how a host's supervisor joins, see ``_stage.py``; after :meth:`open`."""
        assert self._holder is not None
        pid, has_user_namespace, fds = self._holder
        return {"pid": pid, "has_user_namespace": has_user_namespace, "fd": fds[index]}

    def kill(self) -> None:
        """Remove the network; hosts that are still there have none any more."""
        self._is_killed = True
        self._process.kill()

    def _read(self, data: bytes) -> None:
        self._output = (self._output + data)[-4096:]
        if self._answered.is_set() or b"\n" not in data:
            return
        word, *rest = self._output.decode(errors="replace").split()
        if word == "ready":
            pid, has_user_namespace, *fds = map(int, rest)
            self._holder = pid, bool(has_user_namespace), fds
            self._answered.set()

    def _exited(self, code: int) -> None:
        is_lost = self._holder is not None and not self._is_killed
        self._answered.set()
        if is_lost:
            _log.warning("%s ended with code %d: its hosts are lost", self._process.what, code)
            self._on_lost()
