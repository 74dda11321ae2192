"""A proxy in front of an S3 server that does what networks and busy servers do: on request, and it counts.

Requests pass through unchanged, so their signatures stay valid as long as the Host header does.
"""

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REFUSALS = {
    "slow down": (503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"),
    "denied": (403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
    "error": (500, b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"),
}


class S3Proxy:
    """Listens on loopback. Its *fault* is asked for each request and returns what to do with it, or None.

    Faults: ``"slow down"`` (503), ``"error"`` (500), ``"denied"`` (403), ``"reset"`` (before the server sees it),
    ``"lost answer"`` (after the server has done it), ``"cut"`` (the connection ends in the middle of the answer),
    ``"hang"`` (until :attr:`hanging` is set), and a number of seconds to wait.
    """

    def __init__(self, server_url):
        self.upstream = server_url.removeprefix("http://")
        self.fault = lambda method, path: None
        self.hanging = threading.Event()
        self.is_down = False
        self.faults = Counter()
        self.requests = []
        """(method, path, bytes sent) of each request that came."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def pass_on(self):
                proxy._serve(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *args):
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def sent_bytes(self, part=""):
        """Return how many bytes came for paths that hold *part*."""
        return sum(size for method, path, size in self.requests if part in path and method in ("PUT", "POST"))

    def _serve(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if self.is_down:
            return self._reset(handler)
        self.requests.append((handler.command, handler.path, len(body)))
        fault = self.fault(handler.command, handler.path)
        if fault is not None:
            self.faults[fault] += 1
        if fault == "reset":
            return self._reset(handler)
        if fault in REFUSALS:
            return self._answer(handler, *REFUSALS[fault])
        if fault == "hang":
            self.hanging.wait()
        if isinstance(fault, float):
            time.sleep(fault)
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "connection"}
        connection.request(handler.command, handler.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "lost answer":
            return self._reset(handler)
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else len(content)
        handler.send_header("Content-Length", str(length or 0))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self._reset(handler)
        return None

    def _answer(self, handler, status, content):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    def _reset(self, handler):
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    def close(self):
        """End it, and what hangs in it."""
        self.hanging.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def first(count, fault, *, method=None, part=""):
    """Return a fault that hits the first *count* requests of *method* for paths that hold *part*."""
    left = count
    lock = threading.Lock()

    def decide(actual, path):
        nonlocal left
        with lock:
            if left and part in path and method in (None, actual):
                left -= 1
                return fault
        return None

    return decide
