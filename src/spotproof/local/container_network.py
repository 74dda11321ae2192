"""A network of their own for the containers of one attempt: one of the engine's, with addresses that are known before.

Each container has ``eth0`` there, and finds the others by name in its hosts file: no name server is asked. An isolated
network has no way out. From another one the engine leads outside, as it always does; and what listens on this machine's
loopback for the job's sake, the AWS endpoints, is found at the same port of the network's gateway.
"""

import contextlib
import errno
import hashlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from spotproof.engine import Engine
from spotproof.errors import EngineError
from spotproof.local import _forwarder
from spotproof.local.engine import has_late_gateways
from spotproof.local.engine_commands import NetworkPlace, build_network
from spotproof.local.network import local_endpoints
from spotproof.local.processes import Stage, Supervised
from spotproof.local.registry import Registry

__all__ = ["ContainerNetwork", "choose_subnets", "engine_name", "lead_to_gateway"]

_POOL: Final = ipaddress.IPv4Network("10.160.0.0/12")
_SUBNET_BITS: Final = 20
_FIRST_HOST: Final = 257
"""The third byte of algo-1's address is one more than the gateway's; its last is 1."""
_MOST_TRIES: Final = 16
_TAKEN: Final = ("overlap", "already used", "already being used")
"""How engines say that an address range is in use."""
_IP_FREEBIND: Final = 15
"""Source: Linux, ip(7). Python has no name for it."""
_log = logging.getLogger(__name__)


def engine_name(owner: str, what: str) -> str:
    """Return the name of a container or network of one state directory."""
    return f"spotproof-{owner}-{what.replace('/', '.')}"


def choose_subnets(name: str) -> Iterator[ipaddress.IPv4Network]:
    """Yield the ranges that a network tries in turn: which one is first depends on its name alone."""
    step = 1 << (_POOL.max_prefixlen - _SUBNET_BITS)
    count = _POOL.num_addresses // step
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    for number in range(_MOST_TRIES):
        yield ipaddress.IPv4Network((int(_POOL[0]) + (first + number) % count * step, _SUBNET_BITS))


def lead_to_gateway(environment: Mapping[str, str], gateway: str) -> dict[str, str]:
    """Return *environment* with the AWS endpoints on this machine's loopback as they are seen from a network."""
    found = dict(environment)
    for name, value in environment.items():
        if local_endpoints({name: value}):
            url = urlsplit(value)
            found[name] = url._replace(netloc=f"{gateway}:{url.port}").geturl()
            found.setdefault("AWS_ALLOW_HTTP", "true")  # it is still this machine, but no longer a loopback address
    return found


class ContainerNetwork:
    """The network of one attempt's containers, from :meth:`open` to :meth:`kill`. It ends with the server in any case.

    Args:
        what: For messages, and for its name.
        environment: Names the AWS endpoints that are to be reached.
        is_isolated: It leads nowhere.
        on_lost: Called if it ends by itself.
    """

    def __init__(
        self,
        what: str,
        engine: Engine,
        num_hosts: int,
        environment: Mapping[str, str],
        registry: Registry,
        *,
        is_isolated: bool,
        on_lost: Callable[[], object],
    ) -> None:
        self._what, self._engine, self._registry = what, engine, registry
        self._num_hosts, self._is_isolated, self._on_lost = num_hosts, is_isolated, on_lost
        self._name = engine_name(registry.owner, what)
        self._forwards = [] if is_isolated else local_endpoints(environment)
        self._subnet = next(choose_subnets(self._name))
        self._lock = threading.Lock()
        self._is_killed = False
        self._process: Supervised | None = None
        self._listeners: list[socket.socket] = []
        self.is_open = False

    @property
    def is_gone(self) -> threading.Event:
        """Set once nothing of it is left; after :meth:`open`."""
        assert self._process is not None
        return self._process.is_gone

    def open(self) -> None:
        """Make the network.

        Raises:
            EngineError: It could not be made.
        """
        taken: EngineError | None = None
        for subnet in choose_subnets(self._name):
            self._subnet = subnet
            process = Supervised(self._what, [], self._registry, on_output=len, on_exit=self._exited)
            with self._lock:
                self._process, self.is_open = process, True
            try:
                process.open(Stage(mode="engine", cwd=Path("/"), environment={}, settings=self._settings()))
            except EngineError as error:
                if not any(words in error.why for words in _TAKEN):
                    raise
                taken = error
                continue
            with self._lock:
                if self._is_killed:
                    process.kill()
                else:
                    self._listen()
            return
        assert taken is not None
        raise taken

    def environment(self) -> dict[str, str]:
        """Return what a job needs to find the way out: nothing, the engine leads there."""
        return {}

    def place(self, index: int) -> NetworkPlace:
        """Return where a host's container is; after :meth:`open`."""
        return NetworkPlace(network=self._name, address=str(self._subnet[_FIRST_HOST + index]))

    def hosts(self) -> dict[str, str]:
        """Return the addresses of all hosts by name; after :meth:`open`."""
        return {f"algo-{index + 1}": self.place(index).address for index in range(self._num_hosts)}

    def seen_from_inside(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return *environment* as a container needs it; after :meth:`open`."""
        return dict(environment) if self._is_isolated else lead_to_gateway(environment, self._gateway)

    def kill(self) -> None:
        """Remove the network, once its containers have gone; nothing is led out of it any more."""
        with self._lock:
            self._is_killed = True
            if self._process is not None:
                self._process.kill()
            for listener in self._listeners:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
                listener.close()
            self._listeners = []

    @property
    def _gateway(self) -> str:
        return str(self._subnet[1])

    def _settings(self) -> dict[str, object]:
        commands = build_network(
            self._engine,
            name=self._name,
            owner=self._registry.owner,
            what=self._what,
            subnet=str(self._subnet),
            gateway=self._gateway,
            is_internal=self._is_isolated,
        )
        return {**commands, "client_environment": self._engine.environment}

    def _listen(self) -> None:
        """Lead what arrives at the gateway to this machine's loopback.

        Raises:
            EngineError: The gateway is not on this machine.
        """
        for port, host, target in self._forwards:
            listener = socket.socket()
            self._listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if has_late_gateways(self._engine):
                listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            try:
                listener.bind((self._gateway, port))
            except OSError as error:
                is_elsewhere = error.errno == errno.EADDRNOTAVAIL
                raise EngineError(
                    f"{self._what} can't lead to this machine's AWS endpoints:",
                    why=f"{self._gateway}:{port}: {error.strerror}."
                    + " The engine's networks are not on this machine." * is_elsewhere,
                    do="Use an engine that runs as root on this machine, or one host and no network of its own.",
                ) from error
            listener.listen(128)
            _forwarder.forward(listener, host, target)

    def _exited(self, code: int) -> None:
        if not self._is_killed:
            _log.warning("%s ended with code %d: its hosts are lost", self._what, code)
            self._on_lost()
