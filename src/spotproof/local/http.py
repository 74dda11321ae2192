"""What is answered over HTTP: one endpoint on 127.0.0.1 for all AWS services that jobs need, and two doors of our own.

    signed for sagemaker or logs   AWS JSON 1.1, X-Amz-Target: SageMaker.<Operation> or Logs_20140328.<Operation>
    signed for sts or iam          the query protocol
    signed for monitoring          CloudWatch, in the three protocols that it has
    signed for s3, or a path       goes on to the S3 server
    GET  /health                   {"status": "ok"}
    POST /spotproof/reclaim        and /spotproof/faults: see ``controls``

Programs on this machine may use it; web pages opened on it may not: a foreign Host or Origin is refused, so that
neither a form nor a rebound DNS name can start a job.
"""

import json
import logging
import uuid
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from spotproof.local.api import Api
from spotproof.local.controls import Controls
from spotproof.local.identity import Identity
from spotproof.local.logs_api import LogsApi
from spotproof.local.metrics_wire import MetricsWire
from spotproof.local.query import query_error
from spotproof.local.routing import find_region, find_service
from spotproof.local.wire import (
    SerializationException,
    UnknownOperationException,
    WireError,
)

__all__ = ["Application"]

_MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_JSON: Final = "application/x-amz-json-1.1"
_FORM: Final = "application/x-www-form-urlencoded"
_SILENT: Final = ("StopTrainingJob", "DeleteTrainingJob")
"""Operations whose answer has no body, not even an empty object. Source: the API model."""
_TARGETS: Final = {"sagemaker": "SageMaker", "logs": "Logs_20140328"}
_log = logging.getLogger(__name__)


class Application:
    """The WSGI application of one platform.

    Args:
        api: SageMaker.
        logs: CloudWatch Logs.
        metrics: CloudWatch.
        identity: STS and IAM.
        controls: Our own doors.
        s3: What passes requests on to the S3 server.
    """

    def __init__(
        self,
        api: Api,
        logs: LogsApi,
        metrics: MetricsWire,
        identity: Identity,
        controls: Controls,
        s3: Callable[..., Iterable[bytes]],
    ) -> None:
        self._metrics, self._identity, self._controls, self._s3 = metrics, identity, controls, s3
        self._services: dict[str, Callable[[str, Any, str], dict[str, Any]]] = {
            "sagemaker": api.call,
            "logs": logs.call,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        answer: Callable[..., Iterable[bytes]]
        try:
            answer = self._answer(request)
        except WireError as error:
            answer = _json_response({"__type": error.code, "message": error.message}, error.status)
        except HTTPException as error:  # a body longer or shorter than announced, and the like
            answer = _json_response({"__type": "BadRequest", "message": error.description}, error.code or 400)
        except Exception:  # our bug: the client must get an answer, and the log the traceback
            _log.exception("%s %s failed", request.method, request.headers.get("X-Amz-Target", request.path))
            answer = _json_response({"__type": "InternalFailure", "message": "See the platform's log."}, 500)
        return answer(environ, start_response)

    def _answer(self, request: Request) -> Callable[..., Iterable[bytes]]:
        """Return what answers the request: a response, or the way to the S3 server."""
        if not _is_from_here(request):
            return _json_response(
                {"__type": "AccessDeniedException", "message": "Only for programs on this machine."}, 403
            )
        if "Authorization" not in request.headers:  # a signed path is one of S3
            request.max_content_length = _MAX_BODY_BYTES
            route = (request.method, request.path)
            if route == ("GET", "/health"):
                return _json_response({"status": "ok"})
            if route == ("POST", "/spotproof/reclaim"):
                return _json_response(self._controls.reclaim(_read_own(request)))
            if route == ("POST", "/spotproof/faults"):
                return _json_response(self._controls.change_faults(_read_own(request)))
        form = _read_form(request) if request.path == "/" else {}
        service = find_service(request.method, request.path, dict(request.headers), request.args, form)
        if service == "s3":
            return self._s3
        request.max_content_length = _MAX_BODY_BYTES
        if service in ("sts", "iam"):
            # The body has been read, and moto reads it again.
            environ = {**request.environ, "wsgi.input": BytesIO(request.get_data())}
            return self._identity.answer(service, environ, form or request.args)
        if service == "monitoring":
            return self._metrics.answer(request, form or request.args)
        if service in self._services:
            prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
            if prefix != _TARGETS[service]:
                raise UnknownOperationException(f"The local platform answers operations of {_TARGETS[service]} only.")
            region = find_region(dict(request.headers), request.args)
            answer = self._services[service](operation, _read_json(request), region)
            return Response(content_type=_JSON) if operation in _SILENT and not answer else _json_response(answer)
        what = f"not {service}" if service else "and this request is signed for none of them"
        message = f"The local platform answers for sagemaker, logs, monitoring, sts, iam and s3, {what}."
        if "Action" in form or "Action" in request.args:
            return query_error(service or "", "InvalidAction", message)
        raise UnknownOperationException(message)


def _is_from_here(request: Request) -> bool:
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
        origin = request.headers.get("Origin")
        origin_host = urlsplit(origin).hostname if origin is not None else host
    except ValueError:
        return False
    return host in _LOOPBACK and origin_host in _LOOPBACK


def _read_own(request: Request) -> Any:
    """Return what one of our own doors was sent. A form on a web page can't say that it sends JSON."""
    if request.mimetype != "application/json":
        raise SerializationException("Send Content-Type: application/json.")
    return _read_json(request)


def _read_json(request: Request) -> Any:
    try:
        return json.loads(request.get_data() or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SerializationException(f"The request body is not JSON: {error}") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, as the query protocol sends it; empty if the body is something else."""
    if request.mimetype != _FORM:
        return {}
    request.max_content_length = _MAX_BODY_BYTES
    return dict(parse_qsl(request.get_data().decode(errors="replace"), keep_blank_values=True))


def _json_response(document: dict[str, Any], status: int = 200) -> Response:
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    return Response(json.dumps(document), status, headers, content_type=_JSON)
