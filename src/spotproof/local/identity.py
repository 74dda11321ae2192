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

from werkzeug.wrappers import Response

from spotproof.local.keys import Keys
from spotproof.local.query import NAMESPACES, query_error, read_query
from spotproof.local.wire import WireError

__all__ = ["ACCOUNT", "Identity"]

ACCOUNT: Final = "123456789012"
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
                request = read_query(service, action, parameters)
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
        f'<{action}Response xmlns="{NAMESPACES["iam"]}"><{action}Result><IsTruncated>false</IsTruncated>'
        f"<EvaluationResults>{results}</EvaluationResults></{action}Result>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></{action}Response>",
        content_type="text/xml",
    )
