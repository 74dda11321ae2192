"""What AWS clients are told so that they speak to the local platform and to nothing else: variables, a config file."""

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from spotproof.errors import SpecError
from spotproof.local.identity import ACCOUNT
from spotproof.local.keys import Keys

__all__ = ["client_environment", "default_bucket", "misleading_variables", "port_of", "region_of", "write_sdk_config"]

_FIRST_PORT: Final = 30500
_NUM_PORTS: Final = 2200
"""Below the ports that Linux gives out by itself, above those of the S3 server."""
_ENDPOINTS: Final = (
    *(f"AWS_ENDPOINT_URL_{service}" for service in ("SAGEMAKER", "CLOUDWATCH", "CLOUDWATCH_LOGS", "S3", "STS", "IAM")),
    "S3_ENDPOINT_URL",  # of the training toolkit
)
"""Each of them wins over AWS_ENDPOINT_URL."""
_TOKENS: Final = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
"""They belong to other keys."""
_PROFILES: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
"""Of another account. boto3 takes an empty one for a profile that does not exist, so they must go."""
_PROXIES: Final = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_NO_PROXIES: Final = ("no_proxy", "NO_PROXY")


def port_of(state_dir: Path) -> int:
    """Return the port on which a server over *state_dir* listens unless told otherwise: always the same."""
    return _FIRST_PORT + zlib.crc32(str(state_dir.absolute()).encode()) % _NUM_PORTS


def region_of(environ: Mapping[str, str]) -> str:
    """Return the region that the environment names, else us-east-1.

    Raises:
        SpecError: What it names can't be a region.
    """
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if not re.fullmatch(r"[a-z0-9-]{1,32}", region):
        raise SpecError(f"AWS region {region!r} is none.", do="Set AWS_REGION to one like us-east-1, or unset it.")
    return region


def default_bucket(region: str) -> str:
    """Return the bucket that the SageMaker SDKs use where the caller names none."""
    return f"sagemaker-{region}-{ACCOUNT}"


def client_environment(url: str, keys: Keys, sdk_config: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set for a client whose environment is *environ* so far.

    Args:
        url: The one endpoint for all services.
        keys: With which it signs.
        sdk_config: See :func:`write_sdk_config`.
        environ: Names a region, perhaps proxies.
    """
    region = region_of(environ)
    values = {
        "AWS_ENDPOINT_URL": url,
        **keys.environment(),
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(sdk_config),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
    }
    values |= {name: url for name in _ENDPOINTS if environ.get(name)}
    values |= {name: "" for name in _TOKENS if environ.get(name)}
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        values["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "false"
    if any(environ.get(name) for name in _PROXIES):
        known = next((environ[name] for name in _NO_PROXIES if environ.get(name)), "")
        hosts = [*filter(None, known.split(",")), "127.0.0.1"]
        values |= dict.fromkeys(_NO_PROXIES, ",".join(dict.fromkeys(hosts)))
    return values


def misleading_variables(environ: Mapping[str, str]) -> list[str]:
    """Return which variables of *environ* must go, for no value makes them harmless."""
    return [name for name in _PROFILES if name in environ]


def write_sdk_config(folder: Path, region: str) -> Path:
    """Write the configuration of the SageMaker Python SDK, v2 and v3, for *region* into *folder*; return its path.

    It names the default bucket, for which the SDK would ask the real STS, and turns off telemetry. Written as a whole
    or not at all; the same content every time.
    """
    path = folder / f"sagemaker-sdk-{region}.yaml"
    text = f"""# Made by Spotproof for SAGEMAKER_USER_CONFIG_OVERRIDE.
SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
      Session:
        DefaultS3Bucket: {default_bucket(region)}
"""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{path.name}.{os.getpid()}.staged")
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    return path
