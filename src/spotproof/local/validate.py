"""Requests against AWS's own API model, as shipped with botocore: types, required, lengths, ranges, patterns, enums.

botocore's client checks types, required members and minima only and leaves the rest to the service: to this.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from botocore.loaders import Loader
from botocore.model import (
    ListShape,
    MapShape,
    OperationNotFoundError,
    ServiceModel,
    Shape,
    StringShape,
    StructureShape,
)

from spotproof.local.wire import SerializationException, UnknownOperationException, ValidationException

__all__ = ["find_members", "load_models", "validate"]

_SHOWN_CHARS: Final = 300
_JSON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float, str),
}


@lru_cache(maxsize=4)
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def load_models() -> None:
    """Read the models now, so that the first requests don't each do: it takes 0.15 s of processor time."""
    for service in ("sagemaker", "logs"):
        _model(service)


@lru_cache(maxsize=8)
def find_members(service: str, shape: str) -> frozenset[str]:
    """Return the names of the members of a structure of a service's model."""
    found = _model(service).shape_for(shape)
    assert isinstance(found, StructureShape)
    return frozenset(found.members)


def validate(service: str, operation: str, request: Any) -> dict[str, Any]:
    """Return *request* without its nulls if the service's model allows it.

    Raises:
        UnknownOperationException: The service has no such operation.
        SerializationException: Something is of the wrong type.
        ValidationException: All violations of constraints, in AWS's words.
    """
    try:
        shape = _model(service).operation_model(operation).input_shape
    except OperationNotFoundError:
        raise UnknownOperationException(f"There is no operation {operation!r}.") from None
    if not isinstance(request, dict):
        raise SerializationException("The request body is not a JSON object.")
    if shape is None:
        return {}
    cleaned: dict[str, Any] = _without_nulls(request)
    problems = list(_problems(shape, cleaned, ""))
    if problems:
        noun = "error" if len(problems) == 1 else "errors"
        raise ValidationException(f"{len(problems)} validation {noun} detected: {'; '.join(problems)}")
    return cleaned


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    expected = _JSON_TYPES.get(shape.type_name)
    is_wrong_bool = isinstance(value, bool) and shape.type_name != "boolean"
    if expected is not None and (not isinstance(value, expected) or is_wrong_bool):
        found = "null" if value is None else type(value).__name__
        raise SerializationException(f"{found} can not be converted to {shape.type_name} at '{path or 'the request'}'.")
    if isinstance(shape, StructureShape):
        yield from _structure_problems(shape, value, path)
    elif isinstance(shape, ListShape):
        yield from _range_problems(shape, value, len(value), path, "length")
        for index, item in enumerate(value, 1):
            yield from _problems(shape.member, item, f"{path}.{index}.member")
    elif isinstance(shape, MapShape):
        yield from _range_problems(shape, value, len(value), path, "length")
        for key, item in value.items():
            yield from _problems(shape.key, key, f"{path}.key")
            yield from _problems(shape.value, item, f"{path}.{key[:64]}.member")
    elif isinstance(shape, StringShape):
        yield from _string_problems(shape, value, path)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _range_problems(shape, value, value, path, "value")


def _structure_problems(shape: StructureShape, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in shape.metadata.get("required", ()):
        if name not in value:
            yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
    for name, member in shape.members.items():
        if name in value:
            yield from _problems(member, value[name], _join(path, name))


def _string_problems(shape: StringShape, value: str, path: str) -> Iterator[str]:
    is_long = len(value) > shape.metadata.get("max", float("inf"))
    yield from _range_problems(shape, value, len(value), path, "length")
    if shape.enum and value not in shape.enum:
        yield _sentence(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    pattern = shape.metadata.get("pattern")
    if pattern and not is_long and not _compiled(pattern).fullmatch(value):
        yield _sentence(value, path, f"Member must satisfy regular expression pattern: ^{pattern}")


def _range_problems(shape: Shape, value: Any, size: float, path: str, noun: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield _sentence(value, path, f"Member must have {noun} greater than or equal to {low}")
    if high is not None and size > high:
        yield _sentence(value, path, f"Member must have {noun} less than or equal to {high}")


def _sentence(value: Any, path: str, constraint: str) -> str:
    return f"Value '{str(value)[:_SHOWN_CHARS]}' at '{path}' failed to satisfy constraint: {constraint}"


def _join(path: str, name: str) -> str:
    lower = name[:1].lower() + name[1:]
    return f"{path}.{lower}" if path else lower


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Java's classes for letters, digits and spaces in Python's words; all of them stand inside [...] in the model."""
    for java, python in ((r"\p{L}", r"\w"), (r"\p{N}", r"\d"), (r"\p{Z}", r"\s"), (r"\p{Alnum}", "a-zA-Z0-9")):
        pattern = pattern.replace(java, python)
    return re.compile(pattern)
