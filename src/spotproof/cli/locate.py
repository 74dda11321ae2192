"""Which training service a command speaks to: AWS, or the local one, and where that is."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotproof.errors import EngineError
from spotproof.userdir import user_folder

if TYPE_CHECKING:
    from spotproof.launch import TrainingService

__all__ = [
    "LocalServer",
    "ask_controls",
    "default_state_dir",
    "find_local_server",
    "names_endpoint",
    "open_service",
    "use_local_server",
]

_ENDPOINTS = ("AWS_ENDPOINT_URL_SAGEMAKER", "AWS_ENDPOINT_URL")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """A running ``spotproof serve``."""

    url: str
    environment: Mapping[str, str]
    """The variables with which AWS clients find it."""


def default_state_dir() -> Path:
    """Return where ``serve`` keeps jobs and buckets unless told otherwise."""
    return user_folder(os.environ) / "local"


def find_local_server(state_dir: Path | None = None) -> LocalServer | None:
    """Return the server that runs on *state_dir*, or None."""
    try:
        known = json.loads(((state_dir or default_state_dir()) / "server.json").read_text(encoding="utf-8"))
        pid, url = int(known["pid"]), str(known["url"])
        os.kill(pid, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    environment = {str(name): str(value) for name, value in known.get("environment", {}).items()}
    return LocalServer(url=url, environment=environment)


def names_endpoint() -> bool:
    """Return whether the environment says where the service is."""
    return any(os.environ.get(name) for name in _ENDPOINTS)


def use_local_server(state_dir: Path | None = None) -> bool:
    """Point this process at the local server, if one runs and the environment names no other; return whether it did."""
    if names_endpoint():
        return False
    server = find_local_server(state_dir)
    if server is None:
        return False
    os.environ.update(server.environment)
    return True


def open_service(
    *,
    endpoint: str | None = None,
    is_aws: bool = False,
    state_dir: Path | None = None,
    region: str | None = None,
) -> "TrainingService":
    """Return the service: *endpoint*, else AWS if asked for, else what the environment names, else the local server.

    *region* is the job's own, which beats the environment's.

    Raises:
        EngineError: No local server runs, and AWS was not asked for.
    """
    if endpoint is None and not is_aws and not names_endpoint():
        require_local_server(state_dir)
    server = find_local_server(state_dir) if endpoint is not None else None
    if server is not None and server.url == (endpoint or "").rstrip("/"):
        os.environ.update(server.environment)  # its S3 and keys belong to it
    from spotproof.launch import TrainingService

    service = TrainingService(endpoint=endpoint, region=region)
    if region is not None:
        os.environ.update({"AWS_REGION": region, "AWS_DEFAULT_REGION": region})  # the storage finds its buckets there
    if not service.is_local:
        os.environ.update(service.credentials())  # the storage reads no AWS profile
    return service


def require_local_server(state_dir: Path | None = None) -> None:
    """Point this process at the local server.

    Raises:
        EngineError: None runs.
    """
    if not use_local_server(state_dir):
        raise EngineError(
            "No local SageMaker is running.",
            why=f"Neither AWS_ENDPOINT_URL_SAGEMAKER is set nor does a server run on "
            f"{state_dir or default_state_dir()}.",
            do="Start one with `spotproof serve`, or speak to AWS: --aws (in launch and upload: no --local).",
        )


def ask_controls(
    door: str, fields: Mapping[str, Any], *, endpoint: str | None = None, state_dir: Path | None = None
) -> dict[str, Any]:
    """Send *fields* that are not None to one of the local server's own doors; return its answer.

    Raises:
        EngineError: No local server runs, or it refused.
    """
    url = endpoint or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    if url is None:
        server = find_local_server(state_dir)
        if server is None:
            require_local_server(state_dir)
        assert server is not None
        url = server.url
    request = urllib.request.Request(
        f"{url.rstrip('/')}/spotproof/{door}",
        data=json.dumps({name: value for name, value in fields.items() if value is not None}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.loads(response.read() or b"{}")
            return answer if isinstance(answer, dict) else {}
    except urllib.error.HTTPError as error:
        name = fields.get("TrainingJobName")
        whose = f" for job {name!r}" if name is not None else ""
        raise EngineError(f"The local SageMaker refused{whose}: {_message(error)}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise EngineError(
            f"{url} does not answer as a local SageMaker: {reason}.",
            why="Only the local one can be told to reclaim or to fail; AWS does so when it pleases.",
            do="Start one with `spotproof serve`.",
        ) from error


def _message(error: urllib.error.HTTPError) -> str:
    body = error.read().decode("utf-8", errors="replace")
    try:
        fields = json.loads(body)
        return str(fields.get("message") or fields.get("Message") or body)
    except (ValueError, AttributeError):
        return body.strip() or str(error)
