"""CloudWatch on the wire: CBOR of Smithy's RPC v2, which today's clients speak, JSON, and the query protocol.

Source: the API model's ``protocols``; Smithy 2.0, "Smithy RPC v2 CBOR protocol", "awsQueryCompatible trait".
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Final

from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, Shape, StructureShape
from botocore.parsers import ResponseParserError, ResponseParserFactory
from botocore.serialize import create_serializer
from werkzeug.wrappers import Request, Response

from spotproof.local.metrics_api import MetricsApi
from spotproof.local.query import query_answer, query_error, read_query
from spotproof.local.wire import (
    SerializationException,
    UnknownOperationException,
    ValidationException,
    WireError,
)

__all__ = ["MetricsWire"]

_SERVICE: Final = "cloudwatch"
_PREFIX: Final = "GraniteServiceVersion20100801"
_PATH: Final = re.compile(rf"/service/{_PREFIX}/operation/(\w+)")
_CBOR: Final = "smithy-rpc-v2-cbor"
_JSON_TYPE: Final = "application/x-amz-json-1.0"
_ERROR, _TEXT = "SpotproofError", "SpotproofText"
"""Shapes of ours, beside the model's."""


class MetricsWire:
    """Take a request in any of the three protocols; answer in the same, errors too."""

    def __init__(self, api: MetricsApi) -> None:
        self._api = api

    def answer(self, request: Request, parameters: Mapping[str, str]) -> Response:
        """Return the answer; errors are answers, too.

        Args:
            request: One that is signed for CloudWatch.
            parameters: What it holds as a form or in its query.
        """
        path = _PATH.fullmatch(request.path)
        if path is not None:
            return _answer_with(path[1], lambda name: self._api.call(name, _read_cbor(request.get_data())), _cbor)
        prefix, _, target = request.headers.get("X-Amz-Target", "").partition(".")
        if prefix == _PREFIX:
            return _answer_with(target, lambda name: self._api.call(name, _read_json(request.get_data())), _json)
        action = parameters.get("Action", "")
        try:
            answer = self._api.call(action, read_query(_SERVICE, action, parameters))
        except WireError as error:
            return query_error(_SERVICE, _query_code(error), error.message)
        except Exception as error:  # moto meets a form that it was not made for; the client must get an answer
            return query_error(_SERVICE, "MalformedInput", f"{action} can't be read: {error!r}")
        shape = _models()[0].operation_model(action).output_shape
        assert shape is not None
        return query_answer(_SERVICE, action, _with_times(shape, answer))


def _answer_with(
    operation: str, call: Callable[[str], dict[str, Any]], make: Callable[[str, Any, int], Response]
) -> Response:
    try:
        answer, status = call(operation), 200
    except WireError as error:
        answer, status = {"__type": error.code, "message": error.message}, error.status
        response = make(operation, answer, status)
        response.headers["x-amzn-query-error"] = f"{_query_code(error)};Sender"
    else:
        response = make(operation, answer, status)
    response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return response


def _query_code(error: WireError) -> str:
    """Return an error's code as clients of this service know it."""
    match error:
        case UnknownOperationException():
            return "InvalidAction"
        case ValidationException():
            return "ValidationError"
        case SerializationException():
            return "MalformedInput"
    return error.code


def _read_cbor(data: bytes) -> Any:
    factory = ResponseParserFactory()
    factory.set_parser_defaults(timestamp_parser=float)
    parser: Any = factory.create_parser(_CBOR)
    try:
        return parser.parse_data_item(parser.get_peekable_stream_from_bytes(data)) if data else {}
    except (ResponseParserError, ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise SerializationException(f"The request body is not CBOR: {error}") from None


def _read_json(data: bytes) -> Any:
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise SerializationException(f"The request body is not JSON: {error}") from None


def _json(operation: str, answer: Any, status: int) -> Response:
    return Response(json.dumps(answer), status, content_type=_JSON_TYPE)


def _cbor(operation: str, answer: Any, status: int) -> Response:
    name = operation if status == 200 else _ERROR
    body = create_serializer(_CBOR, False).serialize_to_request(answer, _models()[1].operation_model(name))["body"]
    return Response(body, status, {"smithy-protocol": "rpc-v2-cbor"}, content_type="application/cbor")


@lru_cache(maxsize=1)
def _models() -> tuple[ServiceModel, ServiceModel]:
    """Return the API model, and one whose requests are its answers: botocore writes requests only."""
    model = Loader().load_service_model(_SERVICE, "service-2")
    shapes = model["shapes"] | {
        _ERROR: {"type": "structure", "members": {"__type": {"shape": _TEXT}, "message": {"shape": _TEXT}}},
        _TEXT: {"type": "string"},
    }
    turned = {
        name: {"name": name, "http": operation["http"], "input": operation["output"]}
        for name, operation in model["operations"].items()
        if "output" in operation
    }
    error = {"name": _ERROR, "http": {"method": "POST", "requestUri": "/"}, "input": {"shape": _ERROR}}
    answers = {"metadata": model["metadata"], "operations": turned | {_ERROR: error}, "shapes": shapes}
    return ServiceModel(model, _SERVICE), ServiceModel(answers, _SERVICE)


def _with_times(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        return {name: _with_times(shape.members[name], item) for name, item in value.items()}
    if isinstance(shape, ListShape):
        return [_with_times(shape.member, item) for item in value]
    return datetime.fromtimestamp(value, timezone.utc) if shape.type_name == "timestamp" else value
