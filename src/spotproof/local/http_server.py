"""The HTTP server on 127.0.0.1 that a WSGI application answers in."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from spotproof.errors import EngineError
from spotproof.local.s3proxy import ENVIRON_HEADERS

__all__ = ["HttpServer"]

_NUM_READY: Final = 8
"""Threads that wait for a connection."""
_PAUSE_SECONDS: Final = 0.05
_log = logging.getLogger(__name__)


class HttpServer:
    """Listen on 127.0.0.1; answer from :meth:`start` on; *port* 0 takes a free one.

    Whoever waits for a connection answers it as well. One thread that takes them, and makes a new one for each, costs
    two more turns at Python's lock, and while hundreds of jobs run, a turn takes milliseconds.

    Raises:
        EngineError: The port is taken, or may not be used.
    """

    def __init__(self, port: int, application: Callable[..., Iterable[bytes]]) -> None:
        try:
            # Bound here: werkzeug would say on stderr, and in its own words, that the port is taken.
            with socket.create_server(("127.0.0.1", port)) as bound:
                port = bound.getsockname()[1]
                self._server = ThreadedWSGIServer("127.0.0.1", port, application, _Handler, fd=bound.fileno())
        except OSError as error:
            raise _port_error(port, error) from error
        self.port = port
        self._lock = threading.Lock()
        self._ready: set[threading.Thread] = set()
        self._is_closed = False

    def start(self) -> None:
        """Answer what has been asked since the port was opened, and all that follows."""
        with self._lock:
            while len(self._ready) < _NUM_READY:
                self._add_thread()

    def close(self) -> None:
        """Take no more connections; answers under way go on. Harmless twice."""
        with self._lock:
            self._is_closed = True
            waiting, self._ready = self._ready, set()
        for _ in waiting:  # each takes one, and leaves
            socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in waiting:
            thread.join()
        self._server.server_close()

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._answer_connections, name="http", daemon=True)
        self._ready.add(thread)
        thread.start()

    def _answer_connections(self) -> None:
        me = threading.current_thread()
        while True:
            try:
                connection, address = self._server.get_request()
            except OSError as error:  # no descriptor left, or the client is gone already
                _log.warning("a connection could not be taken: %s", error)
                time.sleep(_PAUSE_SECONDS)
                continue
            with self._lock:
                if self._is_closed:
                    connection.close()
                    return
                self._ready.remove(me)
                if not self._ready:
                    self._add_thread()
            self._server.process_request_thread(connection, address)
            with self._lock:
                if self._is_closed or len(self._ready) >= _NUM_READY:
                    return
                self._ready.add(me)


class _Handler(WSGIRequestHandler):
    """Requests go to our log at debug level, not to stderr; their headers stay as they were sent."""

    def make_environ(self) -> dict[str, Any]:
        # WSGI's own form loses names with an underscore, which S3's metadata has and signatures cover.
        return {**super().make_environ(), ENVIRON_HEADERS: self.headers.items()}

    def log(self, type: str, message: str, *args: Any) -> None:
        _log.debug(message, *args)


def _port_error(port: int, error: BaseException) -> EngineError:
    reason = getattr(error, "strerror", None) or "it is in use"
    return EngineError(
        f"Port {port} on 127.0.0.1 can't be used:",
        why=f"{reason}.",
        do="Stop the program that has it, or choose another with --port (0 takes a free one).",
    )
