"""HTTP in front of the operations: AWS JSON 1.1 on 127.0.0.1, and two doors of our own.

    POST /                    X-Amz-Target: SageMaker.<Operation> or Logs_20140328.<Operation>
    GET  /health              {"status": "ok"}
    POST /spotproof/reclaim   {"TrainingJobName": …, "GraceSeconds": 0}

Programs on this machine may use it; web pages opened on it may not: a foreign Host or Origin is refused, so that
neither a form nor a rebound DNS name can start a job.
"""

import json
import logging
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from spotproof.errors import EngineError
from spotproof.local.api import Api, LogsApi
from spotproof.local.wire import (
    ResourceInUse,
    SerializationException,
    UnknownOperationException,
    ValidationException,
    WireError,
)
from spotproof.schedule import MAX_GRACE_SECONDS

__all__ = ["Application", "open_server"]

_MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_JSON: Final = "application/x-amz-json-1.1"
_DEFAULT_REGION: Final = "us-east-1"
_log = logging.getLogger(__name__)


class Application:
    """The WSGI application of one platform."""

    def __init__(self, api: Api, logs: LogsApi) -> None:
        self._api = api
        self._services: dict[str, Callable[[str, Any, str], dict[str, Any]]] = {
            "SageMaker": api.call,
            "Logs_20140328": logs.call,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._answer(request)
        except WireError as error:
            response = _json_response({"__type": error.code, "message": error.message}, error.status)
        except HTTPException as error:  # a body longer or shorter than announced, and the like
            response = _json_response({"__type": "BadRequest", "message": error.description}, error.code or 400)
        except Exception:  # our bug: the client must get an answer, and the log the traceback
            _log.exception("%s %s failed", request.method, request.headers.get("X-Amz-Target", request.path))
            response = _json_response({"__type": "InternalFailure", "message": "See the platform's log."}, 500)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if not _is_from_here(request):
            return _json_response(
                {"__type": "AccessDeniedException", "message": "Only for programs on this machine."}, 403
            )
        request.max_content_length = _MAX_BODY_BYTES
        route = (request.method, request.path)
        if route == ("GET", "/health"):
            return _json_response({"status": "ok"})
        if route == ("POST", "/spotproof/reclaim"):
            return self._reclaim(request)
        if route == ("POST", "/"):
            service, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
            if service not in self._services:
                raise UnknownOperationException("The local platform answers SageMaker and CloudWatch Logs only.")
            answer = self._services[service](operation, _read_json(request), _region(request))
            return _json_response(answer) if answer or operation != "StopTrainingJob" else Response(content_type=_JSON)
        return _json_response({"__type": "UnknownOperationException", "message": "There is nothing here."}, 404)

    def _reclaim(self, request: Request) -> Response:
        if request.mimetype != "application/json":
            raise SerializationException("Send Content-Type: application/json.")
        body = _read_json(request)
        name = body.get("TrainingJobName") if isinstance(body, dict) else None
        if not isinstance(name, str):
            raise ValidationException('Send {"TrainingJobName": "…"}.')
        grace = body.get("GraceSeconds", 0)
        if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace <= MAX_GRACE_SECONDS:
            raise ValidationException(f"GraceSeconds must be a number from 0 to {MAX_GRACE_SECONDS}.")
        job = self._api.find(name)
        attempt = job.reclaim(grace)
        if attempt is None:
            reason = (
                f"it is in status {job.describe()['SecondaryStatus']}" if job.plan.rules.is_spot else "it is on demand"
            )
            raise ResourceInUse(f"Job {name} has no capacity to take: {reason}.")
        return _json_response({"TrainingJobName": name, "Attempt": attempt})


def _is_from_here(request: Request) -> bool:
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
        origin = request.headers.get("Origin")
        origin_host = urlsplit(origin).hostname if origin is not None else host
    except ValueError:
        return False
    return host in _LOOPBACK and origin_host in _LOOPBACK


def _read_json(request: Request) -> Any:
    try:
        return json.loads(request.get_data() or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SerializationException(f"The request body is not JSON: {error}") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _region(request: Request) -> str:
    """Return the region that the request was signed for."""
    match = re.search(r"Credential=[^/]*/\d+/([a-z0-9-]{1,32})/", request.headers.get("Authorization", ""))
    return match[1] if match else _DEFAULT_REGION


def _json_response(document: dict[str, Any], status: int = 200) -> Response:
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    return Response(json.dumps(document), status, headers, content_type=_JSON)


class _QuietHandler(WSGIRequestHandler):
    """Requests go to our log at debug level, not to stderr."""

    def log(self, type: str, message: str, *args: Any) -> None:
        _log.debug(message, *args)


def open_server(port: int, application: Application) -> BaseWSGIServer:
    """Return a threaded server that listens on 127.0.0.1; *port* 0 takes a free one.

    Raises:
        EngineError: The port is taken, or may not be used.
    """
    try:
        return make_server("127.0.0.1", port, application, threaded=True, request_handler=_QuietHandler)
    except OSError as error:
        raise _port_error(port, error) from error
    except SystemExit as error:  # werkzeug's own way to say that the port is taken
        raise _port_error(port, error.__context__ or error) from error


def _port_error(port: int, error: BaseException) -> EngineError:
    reason = getattr(error, "strerror", None) or "it is in use"
    return EngineError(
        f"Port {port} on 127.0.0.1 can't be used:",
        why=f"{reason}.",
        do="Stop the program that has it, or choose another with --port (0 takes a free one).",
    )
