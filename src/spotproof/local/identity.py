"""STS and IAM, answered by moto in this process: who am I, which role, may it. Everything is allowed.

moto is loaded with the first such request: it takes seconds, and most clients never send one.
"""

import json
import logging
import re
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from werkzeug.datastructures import Headers, MultiDict
from werkzeug.wrappers import Response

from spotproof.local.keys import Keys
from spotproof.local.validate import validate
from spotproof.local.wire import UnknownOperationException, WireError

__all__ = ["ACCOUNT", "Identity", "query_error"]

ACCOUNT: Final = "123456789012"
_NAMESPACES: Final = {
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
}
_TRUST: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}
"""Who may take on a role that nobody has made: what every execution role of SageMaker says."""
_MAKES_ROLES: Final = ("CreateRole", "DeleteRole")
_CREDENTIALS: Final = re.compile(r"<Credentials>.*?</SessionToken>", re.DOTALL)
_log = logging.getLogger(__name__)


class Identity:
    """The two services, for one account.

    Args:
        keys: Those that S3 accepts: temporary credentials are made of them.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lock = threading.Lock()  # moto's state is not made for threads

    def answer(self, service: str, environ: dict[str, Any], parameters: Mapping[str, str]) -> Response:
        """Return the answer to a request of the query protocol; errors are answers, too.

        Args:
            service: ``sts`` or ``iam``.
            environ: The WSGI request.
            parameters: What it holds as a form or in its query.
        """
        action = parameters.get("Action", "")
        with self._lock:
            from moto.core.parse import RequestParserError

            try:
                request = _read_request(service, action, parameters)
                if action in ("SimulatePrincipalPolicy", "SimulateCustomPolicy"):
                    return _allow(action, request)
                if service == "iam" and "RoleName" in request and action not in _MAKES_ROLES:
                    _make_role_if_unknown(request["RoleName"])
                return self._ask_moto(service, environ)
            except NotImplementedError:
                message = f"The local platform has no operation {action!r} of {service}."
                return query_error(service, "InvalidAction", message)
            except WireError as error:
                is_unknown = error.code == "UnknownOperationException"
                return query_error(service, "InvalidAction" if is_unknown else "ValidationError", error.message)
            except RequestParserError as error:
                return query_error(service, "MalformedInput", str(error))
            except Exception as error:  # moto meets input that it was not made for; the client must get an answer
                _log.warning("%s %s failed in moto", service, action, exc_info=True)
                return query_error(service, "ValidationError", f"{action} can't be answered here: {error!r}")

    def _ask_moto(self, service: str, environ: dict[str, Any]) -> Response:
        from moto.core.request import Request
        from moto.iam.responses import IamResponse
        from moto.sts.responses import TokenResponse

        responses = {"sts": TokenResponse, "iam": IamResponse}[service]
        status, headers, body = responses.dispatch(Request(environ))
        text = body.decode() if isinstance(body, bytes) else body
        if service == "sts":
            # S3 must know the keys that a role's credentials are made of, and it takes no session token.
            ours = (
                f"<Credentials><AccessKeyId>{escape(self._keys.access)}</AccessKeyId>"
                f"<SecretAccessKey>{escape(self._keys.secret)}</SecretAccessKey><SessionToken></SessionToken>"
            )
            text = _CREDENTIALS.sub(lambda _: ours, text)
        request_id = headers.get("x-amzn-requestid", str(uuid.uuid4()))
        return Response(text, status, {"x-amzn-RequestId": request_id}, content_type="text/xml")


def _read_request(service: str, action: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the request as the API model sees it.

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
    return validate(service, action, parsed or {})


def _make_role_if_unknown(name: str) -> None:
    from moto.iam.models import iam_backends

    backend = iam_backends[ACCOUNT]["aws"]
    if all(role.name != name for role in backend.get_roles()):
        backend.create_role(name, json.dumps(_TRUST), "/", None, "", [], "3600")


def _allow(action: str, request: Mapping[str, Any]) -> Response:
    """Answer that each action on each resource is allowed. moto has no policy simulator."""
    resources = request.get("ResourceArns") or ["*"]
    results = "".join(
        f"<member><EvalActionName>{escape(name)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName><EvalDecision>allowed</EvalDecision>"
        "<MatchedStatements/><MissingContextValues/></member>"
        for name in request["ActionNames"]
        for resource in resources
    )
    return Response(
        f'<{action}Response xmlns="{_NAMESPACES["iam"]}"><{action}Result><IsTruncated>false</IsTruncated>'
        f"<EvaluationResults>{results}</EvaluationResults></{action}Result>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></{action}Response>",
        content_type="text/xml",
    )


def query_error(service: str, code: str, message: str, status: int = 400) -> Response:
    """Return an error as services of the query protocol send it."""
    return Response(
        f'<ErrorResponse xmlns="{_NAMESPACES.get(service, "")}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>",
        status,
        content_type="text/xml",
    )
