"""Which AWS service a request is for: one endpoint answers for all of them. Pure."""

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["find_region", "find_service"]

_DEFAULT_REGION: Final = "us-east-1"
_TARGETS: Final = {"SageMaker": "sagemaker", "Logs_20140328": "logs", "GraniteServiceVersion20100801": "monitoring"}
_VERSIONS: Final = {"2011-06-15": "sts", "2010-05-08": "iam", "2010-08-01": "monitoring"}
"""Of the query protocol; some operations of STS are not signed."""
_SCOPE: Final = re.compile(
    r"[^/]*/\d{8}/(?:(?P<region>[A-Za-z0-9-]{1,32})/)?(?P<service>[A-Za-z0-9.-]{1,64})/aws4_request"
)
"""``key/date/region/service/aws4_request``; SigV4A has no region. Source: AWS, "Signature Version 4"."""


def find_service(
    method: str, path: str, headers: Mapping[str, str], query: Mapping[str, str], form: Mapping[str, str]
) -> str | None:
    """Return the service's signing name (``sagemaker``, ``logs``, ``sts``, ``s3``, …); None if nothing tells.

    The scope of the signature decides, in the header or in a presigned URL; without one, what only that service sends.
    What has a path and no signature, or one of the old kind, is taken for S3, where objects may be public.

    Args:
        method: Of HTTP.
        path: Decoded, without the query.
        headers: Their names spelt as in ``X-Amz-Target``.
        query: Of the URL.
        form: The body, if it is a form; else empty.
    """
    scope = _find_scope(headers, query)
    if scope is not None:
        service = scope["service"].lower()
        return "s3" if service.startswith("s3") else service
    target = headers.get("X-Amz-Target")
    if target is not None:
        return _TARGETS.get(target.partition(".")[0])
    version = form.get("Version") or query.get("Version")
    if path == "/" and version in _VERSIONS:
        return _VERSIONS[version]
    is_old_signature = headers.get("Authorization", "").startswith("AWS ") or "Signature" in query
    return "s3" if path != "/" or is_old_signature else None


def find_region(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """Return the region that the request was signed for."""
    scope = _find_scope(headers, query)
    return scope["region"] if scope is not None and scope["region"] else _DEFAULT_REGION


def _find_scope(headers: Mapping[str, str], query: Mapping[str, str]) -> re.Match[str] | None:
    _, found, credential = headers.get("Authorization", "").partition("Credential=")
    if not found:
        credential = query.get("X-Amz-Credential", "")
    return _SCOPE.match(credential)
