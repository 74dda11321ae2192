"""What a job may do and who may reach it: role, network, tags. Pure."""

import re
import unicodedata

from pydantic import Field, field_validator

from spotproof.errors import SpecError
from spotproof.spec.part import SpecPart, TextMap, Texts

__all__ = ["Access"]

_ROLE = re.compile(r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+", re.ASCII)
_NETWORK_ID = re.compile(r"[-0-9a-zA-Z]{1,32}")
_MAX_TAGS = 50


class Access(SpecPart):
    """Rights, network and marks."""

    role: str = Field(json_schema_extra={"pattern": "^arn:aws[a-z-]*:iam::[0-9]{12}:role/?."})
    """ARN of the role the job runs as."""
    region: str | None = Field(None, json_schema_extra={"pattern": "^[a-z]{2,}(-[a-z]+)+-[0-9]+$"})
    """AWS region; the one of the AWS profile or ``AWS_REGION`` if left out."""
    subnets: Texts = ()
    """Subnets of your VPC that the machines are in, at most 16; with security_group_ids. They need a way to S3."""
    security_group_ids: Texts = ()
    """Security groups of the machines there, at most 5."""
    encrypt_inter_container_traffic: bool = False
    """Encrypt what the machines send each other; training becomes slower."""
    enable_network_isolation: bool = False
    """No network but among the machines: checkpoints must be mirrored by the service, not written to S3 directly."""
    enable_remote_debug: bool | None = None
    """Whether a shell may be opened in the running container, over AWS Systems Manager."""
    enable_session_tag_chaining: bool | None = None
    """Whether the session tags of who submits it go on to the job's role."""
    tags: TextMap = Field(default_factory=dict)
    """Marks of the job, for cost reports; at most 50."""

    @field_validator("role")
    @classmethod
    def _check_role(cls, role: str) -> str:
        if not _ROLE.fullmatch(role) or not 20 <= len(role) <= 2048:
            name = role.rpartition("/")[2] if re.fullmatch(r"[\w+=,.@/-]+", role) else "MyRole"
            raise SpecError(
                f"{role!r} is no role ARN.",
                why="The service takes the whole ARN, not the role's name.",
                do=f"Write arn:aws:iam::<12-digit account>:role/{name}.",
            )
        return role

    @field_validator("region")
    @classmethod
    def _check_region(cls, region: str | None) -> str | None:
        if region is not None and not re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-\d{1,2}", region, re.ASCII):
            raise SpecError(f"{region!r} is no region.", do="Write for example eu-west-1.")
        return region

    @field_validator("subnets", "security_group_ids")
    @classmethod
    def _check_network(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _NETWORK_ID.fullmatch(name):
                raise SpecError(f"{name!r} is no id.", do="Write for example subnet-0123456789abcdef0, or sg-….")
        return names

    @field_validator("subnets")
    @classmethod
    def _check_subnets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > 16:
            raise SpecError(f"{len(names)} subnets are given.", why="The service takes 16.", do="Leave some out.")
        return names

    @field_validator("security_group_ids")
    @classmethod
    def _check_groups(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > 5:
            raise SpecError(f"{len(names)} groups are given.", why="The service takes 5.", do="Leave some out.")
        return names

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: dict[str, str]) -> dict[str, str]:
        if len(tags) > _MAX_TAGS:
            raise SpecError(f"{len(tags)} tags are given.", why=f"The service takes {_MAX_TAGS}.", do="Leave some out.")
        for key, value in tags.items():
            if not 1 <= len(key) <= 128 or len(value) > 256 or not (_is_tag_text(key) and _is_tag_text(value)):
                raise SpecError(
                    f"The tag {key!r} is not one the service takes.",
                    why="A key has 1 to 128, a value up to 256 letters, digits, spaces and _.:/=+-@.",
                    do="Change it.",
                )
            if key.lower().startswith("aws:"):
                raise SpecError(f"The tag {key!r} is AWS's own.", why="aws: is reserved.", do="Rename it.")
        return tags


def _is_tag_text(text: str) -> bool:
    return all(c in "_.:/=+-@" or unicodedata.category(c)[0] in "LNZ" for c in text)
