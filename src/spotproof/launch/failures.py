"""boto3's errors in our words: what happened, why, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from spotproof.errors import LaunchError

__all__ = ["ServiceUnreachable", "translated"]


class ServiceUnreachable(LaunchError):
    """Nothing answered; that may pass."""


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn boto3's errors into ours; *action* completes 'SageMaker did not …'."""
    import botocore.exceptions as aws

    try:
        yield
    except aws.ClientError as error:
        code, text = error.response["Error"].get("Code", "?"), error.response["Error"].get("Message", "")
        raise LaunchError(f"The service did not {action}: {code}: {text}", do=_REMEDIES.get(code, "")) from error
    except aws.NoRegionError as error:
        raise LaunchError(
            "No AWS region is configured.", why="The service is reached per region.", do="Set AWS_DEFAULT_REGION."
        ) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.TokenRetrievalError, aws.SSOError) as error:
        raise LaunchError(
            f"No usable AWS credentials: {error}.",
            do="Log in (`aws configure`, `aws sso login`), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        ) from error
    except (aws.HTTPClientError, aws.ConnectionError) as error:
        raise ServiceUnreachable(
            f"The service did not {action}: {error}.",
            do="Is the endpoint right, and is something listening there? `spotproof serve` starts the local SageMaker.",
        ) from error
    except aws.BotoCoreError as error:
        raise LaunchError(f"The service did not {action}: {error}") from error


_REMEDIES = {
    "ResourceInUse": "Names are unique for ever; submit again to get a new one.",
    "ResourceLimitExceeded": "Ask AWS for a higher quota, or choose another instance_type.",
    "AccessDeniedException": "The credentials in use lack the permission named above.",
    "ExpiredToken": "Log in again.",
    "ExpiredTokenException": "Log in again.",
    "UnrecognizedClientException": "Check the credentials in use.",
    "InvalidClientTokenId": "Check the credentials in use.",
}
