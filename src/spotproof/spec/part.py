"""What the parts of a job have in common: how their fields are read. Pure."""

import re
import types
import typing
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from spotproof.errors import SpecError

__all__ = ["FieldRuleError", "GivenText", "KmsKey", "SpecPart", "TextMap", "Texts", "check_length"]

_KMS_KEY = re.compile(r"[a-zA-Z0-9:/_-]{1,2048}")


class FieldRuleError(SpecError):
    """A rule that binds two fields is broken; *field* is the one to change."""

    def __init__(self, field: str, what: str, why: str, do: str) -> None:
        super().__init__(what, why=why, do=do)
        self.field = field


class GivenText(str):
    """A value that came as text, from an option or a variable: the field it is for says what it stands for.

    In a field of text it stands for itself, whatever YAML would make of it: ``0123`` keeps its zero.
    """

    __slots__ = ()

    def read_as(self, annotation: Any) -> Any:
        """Return the value for a field of that type; the text itself if it is none, for the field to refuse."""
        text = str(self).strip()
        wanted = _without_none(annotation)
        if text == "null" and wanted is not annotation:
            return None
        if wanted in (int, float):
            try:
                return wanted(text)
            except ValueError:
                return str(self)
        if wanted is bool:
            return {"true": True, "false": False}.get(text.lower(), str(self))
        if typing.get_origin(wanted) is tuple and text.startswith("["):
            items = _read_yaml(text)
            return tuple(items) if isinstance(items, list) else items
        is_model = isinstance(wanted, type) and issubclass(wanted, BaseModel)
        if (is_model or typing.get_origin(wanted) is dict) and text.startswith("{"):
            return _read_yaml(text)
        return str(self)


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return members[0] if len(members) == 1 else annotation
    return annotation


def _read_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return text


class SpecPart(BaseModel):
    """Some of a job's fields. Frozen, no unknown fields, no guessing: a text is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_given_text(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, GivenText) and info.field_name is not None:
            return value.read_as(cls.model_fields[info.field_name].annotation)
        return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
"""A list of texts in YAML."""


def _as_texts(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {
        str(key): str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
        for key, value in values.items()
    }


TextMap = Annotated[dict[str, str], BeforeValidator(_as_texts)]
"""A mapping to texts, in which YAML may have found numbers."""


def _check_key(key: str) -> str:
    if not _KMS_KEY.fullmatch(key):
        raise SpecError(
            f"{key!r} is no KMS key.",
            why="It has 1 to 2048 letters, digits, colons, slashes, underscores and hyphens.",
            do="Write its id, its ARN, or alias/NAME.",
        )
    return key


KmsKey = Annotated[str, AfterValidator(_check_key)]
"""A key's id, ARN or alias."""


def check_length(noun: str, text: str, longest: int, *, may_be_empty: bool = True) -> None:
    """Return if the service takes *text*.

    Raises:
        SpecError: It is empty, longer, or of several lines. The text itself is not repeated: it may be a secret.
    """
    if not text and not may_be_empty:
        raise SpecError(f"{noun} is empty.", do="Write it, or leave it out.")
    if len(text) > longest:
        raise SpecError(f"{noun} has {len(text)} characters.", why=f"The service takes {longest}.", do="Shorten it.")
    if "\n" in text:
        raise SpecError(f"{noun} has several lines.", why="The service takes one.", do="Write it in one line.")
