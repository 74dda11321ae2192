"""The network of one attempt's hosts. A script of its own: ``python -I -S _network.py CONFIG``, stdlib only.

    eth0 of each host, in a network namespace of its own ── bridge, in another ── nothing

CONFIG is JSON: ``addresses``, one a host; ``gateway`` and ``prefix_bits``; ``forwards``, ``[[port, host, port], …]``:
what a connection to a port of a host's 127.0.0.1 leads to; and ``proxy_port``, of a proxy to everywhere, or null.

A child makes the namespaces and holds them; this process, which stays in the machine's network, leads outside what
arrives at sockets that the child opened inside. It prints ``ready PID HAS_USER_NAMESPACE FD FD …``: the namespace of
each host is open in the child PID at that descriptor. Nothing of it outlives the two: the kernel removes a network
namespace, and the interfaces in it, with its last process.
"""

import json
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spotproof.local import _forwarder, _kernel, _netlink
else:
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # last: neighbours have names of the standard library
    import _forwarder
    import _kernel
    import _netlink

INTERFACE = "eth0"
_BRIDGE = "bridge"
_BACKLOG = 128


def main() -> int:
    """Hold the network until we are killed."""
    config = json.loads(sys.argv[1])
    ours, childs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _hold(config, childs)
    childs.close()
    message, fds = _receive(ours)
    if "error" in message:
        _tell("error", message["error"])
        return 1
    listeners = [socket.socket(fileno=fd) for fd in fds]
    targets = config["forwards"]
    for number, listener in enumerate(listeners):
        index = number % _listeners_per_host(config)
        if index < len(targets):
            _forwarder.forward(listener, *targets[index][1:])
        else:
            _forwarder.proxy(listener)
    _tell("ready", child, int(message["has_user_namespace"]), *message["namespaces"])
    os.waitpid(child, 0)
    return 1


def _tell(*words: object) -> None:
    os.write(1, " ".join(map(str, words)).encode(errors="replace") + b"\n")


def _listeners_per_host(config: dict[str, Any]) -> int:
    return len(config["forwards"]) + (config["proxy_port"] is not None)


def _receive(ours: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the child's last message, and the listeners that came with those before it, a message a host."""
    listeners: list[int] = []
    while True:
        data, fds, _, _ = socket.recv_fds(ours, 65536, 64)
        listeners += fds
        if not data:
            return {"error": "the network's holder ended"}, []
        if data != b"host":
            return dict(json.loads(data)), listeners
        ours.sendall(b"next")


def _hold(config: dict[str, Any], parent: socket.socket) -> NoReturn:
    """In the child: make everything, say so, and stay."""
    try:
        _kernel.prctl(_kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        message = _make(config, parent)
    except OSError as error:
        message = {"error": error.strerror or str(error)}
    parent.sendall(json.dumps(message).encode())
    threading.Event().wait()
    os._exit(0)


def _make(config: dict[str, Any], parent: socket.socket) -> dict[str, Any]:
    has_user_namespace = _kernel.unshare_as_root(_kernel.CLONE_NEWNET)
    hub = os.open("/proc/self/ns/net", os.O_RDONLY)
    _netlink.set_up("lo")
    _netlink.add_bridge(_BRIDGE)
    _netlink.add_address(_BRIDGE, config["gateway"], config["prefix_bits"])
    # What can't be reached is answered at once, and not by silence: a name server outside is asked in vain, quickly.
    for name, value in (("ip_forward", "1"), ("icmp_ratelimit", "0")):
        try:
            with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
                file.write(value)
        except OSError:
            pass
    namespaces = []
    for number, address in enumerate(config["addresses"]):
        _kernel.unshare(_kernel.CLONE_NEWNET)
        inside = os.open("/proc/self/ns/net", os.O_RDONLY)
        _netlink.set_up("lo")
        if _listeners_per_host(config):
            listeners = _listen(config)
            socket.send_fds(parent, [b"host"], [listener.fileno() for listener in listeners])
            parent.recv(4)
            for listener in listeners:
                listener.close()
        _kernel.join_namespace(hub, _kernel.CLONE_NEWNET)
        _netlink.add_cable(f"port{number}", _BRIDGE, INTERFACE, inside)
        _kernel.join_namespace(inside, _kernel.CLONE_NEWNET)
        _netlink.set_up(INTERFACE)
        _netlink.add_address(INTERFACE, address, config["prefix_bits"])
        _netlink.add_default_route(config["gateway"])
        _kernel.join_namespace(hub, _kernel.CLONE_NEWNET)
        namespaces.append(inside)
    return {"has_user_namespace": has_user_namespace, "namespaces": namespaces}


def _listen(config: dict[str, Any]) -> list[socket.socket]:
    ports = [port for port, *_ in config["forwards"]]
    if config["proxy_port"] is not None:
        ports.append(config["proxy_port"])
    return [socket.create_server(("127.0.0.1", port), backlog=_BACKLOG) for port in ports]


if __name__ == "__main__":
    sys.exit(main())
