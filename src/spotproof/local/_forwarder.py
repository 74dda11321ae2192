"""The way out of a network that has none: bytes between a socket inside it and one outside. Standard library only.

A forwarded port leads to one place. A proxy port leads anywhere, to clients that speak HTTP to it as to any proxy:
``CONNECT host:port``, or ``GET http://host/path`` with one request a connection.
"""

import os
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

_BUFFER_BYTES = 1 << 20
_MAX_HEAD_BYTES = 64 * 1024
_CONNECT_TIMEOUT_SECONDS = 30.0
_HOP_HEADERS = (b"connection:", b"proxy-connection:", b"keep-alive:", b"proxy-authorization:")


def forward(listener: socket.socket, host: str, port: int) -> None:
    """Lead every connection to *listener* to *host*:*port*, in threads, until the process ends."""
    _serve(listener, lambda inside: _lead(inside, host, port))


def proxy(listener: socket.socket) -> None:
    """Serve HTTP's proxy requests at *listener*, in threads, until the process ends."""
    _serve(listener, _answer_proxy_request)


def _serve(listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
    def accept() -> None:
        while True:
            try:
                inside, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_guarded, args=(take, inside), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _guarded(take: Callable[[socket.socket], None], inside: socket.socket) -> None:
    with inside:
        try:
            take(inside)
        except OSError:
            pass  # one of the two has gone: closing the other tells it


def _lead(inside: socket.socket, host: str, port: int, first: bytes = b"") -> None:
    with socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_SECONDS) as outside:
        outside.settimeout(None)
        outside.sendall(first)
        _exchange(inside, outside)


def _exchange(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Move bytes until *source* ends; then *target* is told so. The bytes stay in the kernel."""
    read_fd, write_fd = os.pipe()
    try:
        while moved := os.splice(source.fileno(), write_fd, _BUFFER_BYTES):
            while moved:
                moved -= os.splice(read_fd, target.fileno(), moved)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # Reset: neither direction has a future.
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
    finally:
        os.close(read_fd)
        os.close(write_fd)


def _answer_proxy_request(inside: socket.socket) -> None:
    head, rest = _read_head(inside)
    lines = head.split(b"\r\n")
    try:
        method, target, version = lines[0].decode("latin-1").split(" ")
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = url.hostname, url.port or (443 if method == "CONNECT" else 80)
    except ValueError:
        host = None
    if not host or (method != "CONNECT" and url.scheme != "http"):
        inside.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        return
    try:
        outside = socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_SECONDS)
    except OSError as error:
        text = f"{host}:{port} can't be reached: {error}\n".encode(errors="replace")
        start = f"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
        inside.sendall(start.encode() + text)
        return
    with outside:
        outside.settimeout(None)
        if method == "CONNECT":
            inside.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            outside.sendall(rest)
        else:
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            kept = [line for line in lines[1:] if not line.lower().startswith(_HOP_HEADERS)]
            first = f"{method} {path} {version}".encode("latin-1")
            # The next request may be for another host: one request, one connection.
            outside.sendall(b"\r\n".join([first, *kept, b"Connection: close"]) + b"\r\n\r\n" + rest)
        _exchange(inside, outside)


def _read_head(inside: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = inside.recv(_MAX_HEAD_BYTES)
        if not piece or len(data) > _MAX_HEAD_BYTES:
            raise ConnectionError("no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest
