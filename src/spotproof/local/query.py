"""The query protocol of AWS: requests are forms, answers are XML.

moto reads the forms. It is loaded with the first of them: it takes seconds, and most clients never send one.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final
from xml.sax.saxutils import escape

from werkzeug.datastructures import Headers, MultiDict
from werkzeug.wrappers import Response

from spotproof.local.validate import validate
from spotproof.local.wire import UnknownOperationException

__all__ = ["NAMESPACES", "query_answer", "query_error", "read_query"]

NAMESPACES: Final = {
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "cloudwatch": "http://monitoring.amazonaws.com/doc/2010-08-01/",
}
"""Of the XML, by the services' names in botocore."""


def read_query(service: str, action: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return a request as the API model sees it, times as seconds since 1970.

    Raises:
        WireError: The model does not allow it, or has no such operation.
        RequestParserError: A value is of another type.
    """
    from botocore.model import OperationNotFoundError
    from moto.core.parse import PROTOCOL_PARSERS
    from moto.core.utils import get_service_model

    try:
        model = get_service_model(service).operation_model(action)
    except OperationNotFoundError:
        raise UnknownOperationException(f"{service} has no operation {action!r}.") from None
    parsed = PROTOCOL_PARSERS["query"](model).parse(
        {
            "method": "POST",
            "values": MultiDict(parameters),
            "headers": Headers(),
            "body": b"",
            "url_path": "/",
            "url_params": {},
        }
    )
    return validate(service, action, _with_seconds(parsed or {}))


def _with_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_seconds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_seconds(item) for item in value]
    return value.timestamp() if isinstance(value, datetime) else value


def query_answer(service: str, action: str, members: Mapping[str, Any]) -> Response:
    """Return an answer; times in it are datetimes, lists have members."""
    return Response(
        f'<{action}Response xmlns="{NAMESPACES[service]}"><{action}Result>{_xml(members)}</{action}Result>'
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></{action}Response>",
        content_type="text/xml",
    )


def _xml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"<{name}>{_xml(item)}</{name}>" for name, item in value.items())
    if isinstance(value, list):
        return "".join(f"<member>{_xml(item)}</member>" for item in value)
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return escape(str(value))


def query_error(service: str, code: str, message: str, status: int = 400) -> Response:
    """Return an error as services of the query protocol send it."""
    return Response(
        f'<ErrorResponse xmlns="{NAMESPACES.get(service, "")}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>",
        status,
        content_type="text/xml",
    )
