"""Tags of training jobs: AddTags, ListTags, DeleteTags, and those that a request brings."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from spotproof.local.jobs import Jobs
from spotproof.local.wire import ValidationException

__all__ = ["Tags", "parse_tags", "tag_list"]

_MAX_TAGS: Final = 50
"""Of one resource. Source: the API model, TagList; AWS, "Tag naming limits and requirements"."""
_RESERVED: Final = "aws:"
_KIND: Final = "training-job/"


def parse_tags(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags of a request by their keys.

    Raises:
        ValidationException: A key comes twice, or is AWS's own.
    """
    found: dict[str, str] = {}
    for tag in tags:
        key = tag["Key"]
        if key in found:
            raise ValidationException(f"Duplicate tag keys found: {key}. Each key of a resource may have one value.")
        if key.lower().startswith(_RESERVED):
            raise ValidationException(
                f"Tag key {key!r} can't be used: those that begin with {_RESERVED} are AWS's own."
            )
        found[key] = tag["Value"]
    return found


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as the API has them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


class Tags:
    """The three operations over the jobs of one platform. They know training jobs and no other resources."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def add(self, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        """Give a job more tags, or others; the answer has all that it has now."""
        name = self._find(request["ResourceArn"])
        new = parse_tags(request["Tags"])

        def add(tags: dict[str, str]) -> dict[str, str]:
            together = tags | new
            if len(together) > _MAX_TAGS:
                raise ValidationException(
                    f"The training job {name} would have {len(together)} tags, and {_MAX_TAGS} is the limit."
                )
            return together

        return {"Tags": tag_list(self._jobs.change_tags(name, add))}

    def list(self, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        """Return a job's tags: one page, for there are never more than a page holds."""
        if "NextToken" in request:
            raise ValidationException("Invalid pagination token.")
        return {"Tags": tag_list(self._jobs.tags(self._find(request["ResourceArn"])))}

    def delete(self, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        """Take tags away; those that a job does not have are no error."""
        keys = set(request["TagKeys"])
        name = self._find(request["ResourceArn"])
        self._jobs.change_tags(name, lambda tags: {key: value for key, value in tags.items() if key not in keys})
        return {}

    def _find(self, arn: str) -> str:
        """Return the name of the job whose ARN this is."""
        name = arn.split(":", 5)[-1].removeprefix(_KIND)
        found = self._jobs.describe(name)
        if found is None or found["TrainingJobArn"] != arn:
            raise ValidationException(f"Requested resource not found: {arn}.")
        return name
