"""Server-side encryption, accepted and not done: objects stay on this machine, and the S3 server has no keys for it.

The SageMaker SDK asks for ``aws:kms`` with every upload, and the server refuses what it can't do. So the headers that
ask for it are taken out of a request in front of the server. They are signed: the request is signed anew, if its
signature is right; if it is not, it goes on as it came, and the server says so.
"""

import hmac
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from spotproof.local.keys import Keys
from spotproof.local.s3proxy import ENVIRON_HEADERS, StartResponse

__all__ = ["WithoutEncryption"]

_PREFIX: Final = "x-amz-server-side-encryption"
_CUSTOMER: Final = f"{_PREFIX}-customer-"
"""With keys that the client sends: the server can do that."""
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, *SignedHeaders=([^, ]+), *"
    r"Signature=([0-9a-f]{64})"
)
Headers = list[tuple[str, str]]


class WithoutEncryption:
    """A WSGI application that takes the wish for encryption out of requests before *s3* sees them.

    Args:
        s3: What answers.
        keys: With which clients sign, and requests are signed anew.
    """

    def __init__(self, s3: Callable[..., Iterable[bytes]], keys: Keys) -> None:
        self._s3, self._keys = s3, keys

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        headers: Headers = list(environ[ENVIRON_HEADERS])
        wishes = [(name, value) for name, value in headers if _is_wish(name)]
        target = environ.get("RAW_URI") or environ["REQUEST_URI"]
        signed = _sign_without(wishes, headers, environ["REQUEST_METHOD"], target, self._keys) if wishes else None
        if signed is None:
            return self._s3(environ, start_response)

        def start(status: str, answered: Headers) -> object:
            told = wishes if status.startswith("2") else []
            return start_response(status, [*answered, *told])

        return self._s3({**environ, ENVIRON_HEADERS: signed}, start)


def _is_wish(name: str) -> bool:
    return name.lower().startswith(_PREFIX) and not name.lower().startswith(_CUSTOMER)


def _sign_without(wishes: Headers, headers: Headers, method: str, target: str, keys: Keys) -> Headers | None:
    """Return the headers without *wishes*, signed; None if they are not signed with our keys as they are."""
    found = _AUTHORIZATION.match(_value(headers, "authorization"))
    if found is None or found[1] != keys.access:
        return None
    _, date, region, names, signature = found.groups()
    auth = S3SigV4Auth(Credentials(keys.access, keys.secret), "s3", region)
    covered = names.split(";")
    if not hmac.compare_digest(_sign(auth, method, target, headers, covered), signature):
        return None
    dropped = {name.lower() for name, _ in wishes}
    kept = [(name, value) for name, value in headers if name.lower() not in dropped | {"authorization"}]
    still_covered = [name for name in covered if name not in dropped]
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={keys.access}/{date}/{region}/s3/aws4_request, "
        f"SignedHeaders={';'.join(still_covered)}, Signature={_sign(auth, method, target, kept, still_covered)}"
    )
    return [*kept, ("Authorization", authorization)]


def _sign(auth: S3SigV4Auth, method: str, target: str, headers: Headers, covered: list[str]) -> str:
    request = AWSRequest(method, f"http://{_value(headers, 'host')}{target}")
    for name, value in headers:
        if name.lower() in covered:
            request.headers.add_header(name, value)
    request.context["timestamp"] = _value(headers, "x-amz-date")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return str(auth.signature(text, request))


def _value(headers: Headers, name: str) -> str:
    return next((value for found, value in headers if found.lower() == name), "")
