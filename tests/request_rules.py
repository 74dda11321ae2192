"""What SageMaker would refuse of a CreateTrainingJob request, by what botocore checks and what its model states."""

import re
import unicodedata
from functools import cache
from typing import Any

import botocore.session
import botocore.validate

__all__ = ["find_violations", "instance_types"]


@cache
def _shape() -> Any:
    service = botocore.session.get_session().get_service_model("sagemaker")
    return service.operation_model("CreateTrainingJob").input_shape


def instance_types() -> list[str]:
    """All that the model names."""
    return list(_shape().members["ResourceConfig"].members["InstanceType"].enum)


def find_violations(request: dict[str, Any]) -> list[str]:
    """Types, required members and minima by botocore's validator; maxima, patterns and enumerations by its model."""
    report = botocore.validate.ParamValidator().validate(request, _shape())
    return [*report.generate_report().splitlines(), *_violations(request, _shape())]


def _violations(value: Any, shape: Any, path: str = "") -> list[str]:
    if shape.type_name == "structure":
        return [v for k, item in value.items() for v in _violations(item, shape.members[k], f"{path}.{k}")]
    found = []
    size = value if shape.type_name in ("integer", "long") else len(value) if hasattr(value, "__len__") else 0
    if size > shape.metadata.get("max", size):
        found.append(f"{path} is too long or too large")
    if shape.type_name == "list":
        return found + [v for item in value for v in _violations(item, shape.member, f"{path}[]")]
    if shape.type_name == "map":
        inner = [[*_violations(k, shape.key, path), *_violations(item, shape.value, path)] for k, item in value.items()]
        return found + [v for part in inner for v in part]
    if shape.type_name != "string":
        return found
    if shape.metadata.get("enum") and value not in shape.metadata["enum"]:
        found.append(f"{path}={value!r} is not in the enumeration")
    pattern = shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        found.append(f"{path}={value!r} does not match {pattern}")
    return found


def _matches(pattern: str, value: str) -> bool:
    pattern = pattern.replace(r"\p{Alnum}", "a-zA-Z0-9")
    """Java's classes are those of Unicode: one letter of each class stands for all of it."""
    for letter, name in (("L", "a"), ("N", "1"), ("Z", " ")):
        if rf"\p{{{letter}}}" in pattern:
            value = "".join(name if unicodedata.category(c)[0] == letter else c for c in value)
            pattern = pattern.replace(rf"\p{{{letter}}}", name)
    return re.fullmatch(pattern, value) is not None
