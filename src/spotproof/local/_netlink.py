"""Interfaces, addresses and routes of the network namespace that we are in, over rtnetlink. Standard library only.

Source: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h; the messages are those that iproute2 sends.
"""

import os
import socket
import struct

_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_ERROR_MESSAGE = 2
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_UP = 1
_NAME, _MASTER, _LINK_INFO, _NAMESPACE_FD = 3, 10, 18, 28
_KIND, _KIND_DATA, _PEER = 1, 2, 1


def add_bridge(name: str) -> None:
    _send(_NEW_LINK, _CREATE | _EXCLUSIVE, _link(_UP) + _text(_NAME, name) + _kind("bridge"))


def add_cable(port: str, bridge: str, interface: str, namespace_fd: int) -> None:
    """Connect *bridge* here with a new *interface* in another network namespace."""
    peer = _attribute(_PEER, _link(0) + _text(_NAME, interface) + _number(_NAMESPACE_FD, namespace_fd))
    content = _text(_NAME, port) + _number(_MASTER, socket.if_nametoindex(bridge)) + _kind("veth", peer)
    _send(_NEW_LINK, _CREATE | _EXCLUSIVE, _link(_UP) + content)


def set_up(interface: str) -> None:
    _send(_NEW_LINK, 0, _link(_UP, socket.if_nametoindex(interface)))


def add_address(interface: str, address: str, prefix_bits: int) -> None:
    head = struct.pack("=BBBBI", socket.AF_INET, prefix_bits, 0, 0, socket.if_nametoindex(interface))
    packed = socket.inet_aton(address)
    _send(_NEW_ADDRESS, _CREATE | _EXCLUSIVE, head + _attribute(1, packed) + _attribute(2, packed))


def add_default_route(gateway: str) -> None:
    main_table, boot_protocol, universe, unicast = 254, 3, 0, 1
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, main_table, boot_protocol, universe, unicast, 0)
    _send(_NEW_ROUTE, _CREATE | _EXCLUSIVE, head + _attribute(5, socket.inet_aton(gateway)))


def _link(flags: int, index: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _kind(name: str, data: bytes = b"") -> bytes:
    return _attribute(_LINK_INFO, _text(_KIND, name) + (_attribute(_KIND_DATA, data) if data else b""))


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind, struct.pack("=I", number))


def _attribute(kind: int, content: bytes) -> bytes:
    padding = -len(content) % 4
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(padding)


def _send(kind: int, flags: int, content: bytes) -> None:
    """Send one request and wait for its acknowledgement."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        kernel.send(struct.pack("=IHHII", 16 + len(content), kind, _REQUEST | _ACK | flags, 1, 0) + content)
        while True:
            answer = kernel.recv(65536)
            if struct.unpack_from("=H", answer, 4)[0] == _ERROR_MESSAGE:
                number = -struct.unpack_from("=i", answer, 16)[0]
                if number != 0:
                    raise OSError(number, f"rtnetlink: {os.strerror(number)}")
                return
