"""A streaming reverse proxy in front of the S3 server, as a WSGI application; a hook may disturb what passes.

A request goes on as it came: path and query as they were sent and the same Host, so that its signature holds. Bodies
pass in pieces and are never held whole.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import SKIP_HEADER

__all__ = ["ENVIRON_HEADERS", "Disturbance", "S3Proxy"]

ENVIRON_HEADERS: Final = "spotproof.headers"
"""Where the server puts the request's headers, as (name, value) pairs as they were sent."""
_PIECE_BYTES: Final = 256 * 1024
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "expect"}
)
"""Source: RFC 9110, section 7.6.1; Expect was answered by the server we run in."""

StartResponse = Callable[[str, list[tuple[str, str]]], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """What happens to one request."""

    delay_seconds: float = 0.0
    """Before it goes on."""
    bytes_per_second: float | None = None
    """Of each body; None for no limit."""
    error: tuple[int, str] | None = None
    """Answered in the server's place: HTTP status and S3 error code. The request does not go on."""
    reset_after_bytes: int | None = None
    """The connection breaks after that many bytes of the request's body, or, if it has fewer, of the answer's."""


class S3Proxy:
    """Pass requests to the S3 server at *upstream*, for example ``http://127.0.0.1:10503``.

    Args:
        upstream: URL without a path.
        disturb: Asked once per request, with its method and its path as sent (``/bucket/key``, percent-encoded).
    """

    def __init__(self, upstream: str, disturb: Callable[[str, str], Disturbance | None] = lambda *_: None) -> None:
        self._upstream, self._disturb = upstream.rstrip("/"), disturb
        # As many connections as clients use at once; beyond those, ones that are closed after use.
        self._pool = urllib3.PoolManager(maxsize=64, retries=False, timeout=urllib3.Timeout(connect=5, read=None))

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        target = environ.get("RAW_URI") or environ["REQUEST_URI"]
        disturbance = self._disturb(environ["REQUEST_METHOD"], target.partition("?")[0]) or Disturbance()
        time.sleep(disturbance.delay_seconds)
        budget = _Budget(disturbance.reset_after_bytes)
        try:
            if disturbance.error is not None:
                # Closing on a body that was not read would reset the connection before the client has seen the error.
                for _ in _request_body(environ, disturbance, budget) or ():
                    pass
                return _refuse(start_response, *disturbance.error)
            answer = self._pool.urlopen(
                environ["REQUEST_METHOD"],
                self._upstream + target,
                body=_request_body(environ, disturbance, budget),
                headers=_request_headers(environ),
                preload_content=False,
                decode_content=False,
                redirect=False,
                assert_same_host=False,
            )
        except _Broken:
            _break(environ)
            return _refuse(start_response, 503, "ServiceUnavailable")  # nobody hears it
        except (HTTPError, OSError):
            return _refuse(start_response, 503, "ServiceUnavailable")
        headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP]
        start_response(f"{answer.status} {answer.reason or ''}", headers)
        return _Answer(answer, environ, disturbance, budget)


class _Broken(Exception):
    """The connection to the client is to end here. No OSError: urllib3 would take that for its own."""


class _Budget:
    """How many bytes may still pass before the connection breaks."""

    def __init__(self, num_bytes: int | None) -> None:
        self._left = num_bytes

    def cut(self, piece: bytes) -> Iterator[bytes]:
        """Yield what of *piece* may pass.

        Raises:
            _Broken: That is less than all of it. Ending there would leave both sides waiting for the rest.
        """
        if self._left is None or len(piece) <= self._left:
            if self._left is not None:
                self._left -= len(piece)
            yield piece
            return
        if self._left:
            yield piece[: self._left]
        raise _Broken


class _Answer:
    """The answer's body; closing it gives the connection back, or closes that if it was not read to its end."""

    def __init__(
        self,
        answer: urllib3.BaseHTTPResponse,
        environ: dict[str, Any],
        disturbance: Disturbance,
        budget: _Budget,
    ) -> None:
        self._answer, self._environ, self._disturbance, self._budget = answer, environ, disturbance, budget

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._answer.stream(_PIECE_BYTES):
                _pace(len(piece), self._disturbance)
                yield from self._budget.cut(piece)
        except (_Broken, HTTPError, OSError):
            # Its length is promised already: the client must see the break, not a short object.
            _break(self._environ)

    def close(self) -> None:
        if self._answer.closed:
            self._answer.release_conn()
        else:
            self._answer.close()


def _request_body(environ: dict[str, Any], disturbance: Disturbance, budget: _Budget) -> Iterator[bytes] | None:
    """Return the pieces of the body; None if there is none."""
    announced = environ.get("CONTENT_LENGTH")
    if announced and int(announced) > 0:
        return _read(environ["wsgi.input"], int(announced), disturbance, budget)
    if environ.get("wsgi.input_terminated"):
        return _read(environ["wsgi.input"], None, disturbance, budget)
    return None


def _read(source: Any, announced: int | None, disturbance: Disturbance, budget: _Budget) -> Iterator[bytes]:
    left = announced
    while left is None or left > 0:
        piece = source.read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
        if not piece:
            if left is None:
                return
            # The client is gone. Ending here would be a whole, shorter body for a server that is not strict.
            raise _Broken
        _pace(len(piece), disturbance)
        yield from budget.cut(piece)
        left = None if left is None else left - len(piece)


def _request_headers(environ: dict[str, Any]) -> urllib3.HTTPHeaderDict:
    passed = urllib3.HTTPHeaderDict()
    for name, value in environ[ENVIRON_HEADERS]:
        if name.lower() not in _HOP_BY_HOP:
            passed.add(name, value)
    # urllib3 would add its own where the client sent none.
    for name in ("Accept-Encoding", "User-Agent"):
        passed.setdefault(name, SKIP_HEADER)
    return passed


def _pace(num_bytes: int, disturbance: Disturbance) -> None:
    if disturbance.bytes_per_second is not None:
        time.sleep(num_bytes / disturbance.bytes_per_second)


def _break(environ: dict[str, Any]) -> None:
    connection: socket.socket | None = environ.get("werkzeug.socket")
    if connection is not None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the client was faster
            pass


def _refuse(start_response: StartResponse, status: int, code: str) -> list[bytes]:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
    )
    start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
