"""Images in Amazon's registry. Pure."""

import re
from dataclasses import dataclass

__all__ = ["EcrImage", "parse_ecr_uri"]

_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/"
    r"(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class EcrImage:
    """What the parts of an image's URI say."""

    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def image_id(self) -> dict[str, str]:
        """Which of the repository's images it is, as DescribeImages takes it."""
        return {"imageDigest": self.digest} if self.digest else {"imageTag": self.tag or "latest"}


def parse_ecr_uri(uri: str) -> EcrImage | None:
    """Return the parts of ``ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG``; None for another registry's."""
    found = _URI.fullmatch(uri)
    return EcrImage(**found.groupdict()) if found is not None else None
