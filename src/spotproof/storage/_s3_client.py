"""How S3 is reached: what the ``AWS_*`` variables and the shared AWS files say, as boto3 reads them."""

from collections.abc import Callable, Mapping
from configparser import ConfigParser, Error
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from obstore.store import S3Store

from spotproof.errors import SpecError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

__all__ = ["endpoint_of", "open_store"]

_REQUEST_TIMEOUT: Final = timedelta(seconds=120)
"""For one part of at most 16 MiB, so for lines of 1.2 Mbit/s at least."""
_CONNECT_TIMEOUT: Final = timedelta(seconds=5)
_RETRY: "Final[RetryConfig]" = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
"""Exponential backoff from 0.1 s with jitter. What fails for longer fails the save, and that is made again later."""

_ELSEWHERE: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Where obstore itself looks for credentials, besides the metadata service of an instance."""
_NEEDS_BOTO: Final = ("sso_session", "sso_start_url", "role_arn", "credential_process", "login_session")


def open_store(bucket: str, environment: Mapping[str, str], *, home: Path | None = None) -> S3Store:
    """Return obstore's client of *bucket*. Touches no network.

    Keys come from ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``; else from the profile
    ``AWS_PROFILE`` (``default``) of the shared files, if *home* is given; else from the service of the container or
    the instance. ``AWS_ENDPOINT_URL_S3`` beats ``AWS_ENDPOINT_URL``, and both the profile's.

    Raises:
        SpecError: The endpoint is plain http and not on this machine, or no credentials can be had.
    """
    profile = _read_profile(environment, home) if home is not None else {}
    endpoint = endpoint_of(environment) or profile.get("endpoint_url")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or profile.get("region")
    # Whatever is not given here, obstore takes from the process's environment, and that may be another's: a job's
    # storage must not get the endpoint or the session token of the user's own AWS account.
    config: S3Config = {"region": region or "us-east-1", "conditional_put": "etag"}
    client: ClientConfig = {"timeout": _REQUEST_TIMEOUT, "connect_timeout": _CONNECT_TIMEOUT}
    if endpoint:
        config["endpoint"] = config["aws_endpoint_url_s3"] = endpoint
        config["virtual_hosted_style_request"] = False
        if endpoint.startswith("http://"):
            if not (_is_loopback(endpoint) or environment.get("AWS_ALLOW_HTTP", "").lower() == "true"):
                raise SpecError(
                    f"The S3 endpoint {endpoint} is plain http:",
                    why="credentials and data would cross the network in the clear.",
                    do="Use https, or set AWS_ALLOW_HTTP=true if you mean it.",
                )
            client["allow_http"] = True
    return S3Store(
        bucket,
        config=config,
        client_options=client,
        retry_config=_RETRY,
        credential_provider=_static_credentials(environment, profile),
    )


def endpoint_of(environment: Mapping[str, str]) -> str | None:
    """Return the S3 endpoint that the environment names, if any."""
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None


def _static_credentials(
    environment: Mapping[str, str], profile: Mapping[str, str]
) -> "Callable[[], S3Credential] | None":
    """Return what gives the user's keys; None if there are none, so that obstore looks for a service that has some."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    found = {name.lower(): environment.get(name, "") for name in names}
    if not (found["aws_access_key_id"] and found["aws_secret_access_key"]):
        found = {name.lower(): profile.get(name.lower(), "") for name in names}
    if found["aws_access_key_id"] and found["aws_secret_access_key"]:
        credentials: S3Credential = {
            "access_key_id": found["aws_access_key_id"],
            "secret_access_key": found["aws_secret_access_key"],
            "token": found["aws_session_token"] or None,
            "expires_at": None,
        }
        return lambda: credentials
    if any(environment.get(name) for name in _ELSEWHERE):
        return None
    if any(name in profile for name in _NEEDS_BOTO):
        raise SpecError(
            f"The AWS profile {_profile_name(environment)!r} gets its keys from a sign-in or a role:",
            why="the direct way to S3 reads keys only.",
            do='Run eval "$(aws configure export-credentials --format env)" first.',
        )
    if environment.get("AWS_PROFILE") and not profile:
        raise SpecError(f"There is no AWS profile {environment['AWS_PROFILE']!r} in the shared AWS files.")
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise SpecError(
            "There are no AWS credentials for S3.",
            why="Neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a profile give any, and "
            "AWS_EC2_METADATA_DISABLED forbids to ask the instance.",
            do="Set them.",
        )
    return None


def _profile_name(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_PROFILE") or "default"


def _read_profile(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return what the shared files say of the profile; those of others, or none, are no error."""
    name = _profile_name(environment)
    files = (
        (environment.get("AWS_CONFIG_FILE") or home / ".aws/config", name if name == "default" else f"profile {name}"),
        (environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials", name),
    )
    found: dict[str, str] = {}
    for path, section in files:
        parser = ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(Path(path).expanduser(), encoding="utf-8")
            found.update(parser[section])
        except (Error, KeyError, OSError, UnicodeDecodeError):
            continue
    return found


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
