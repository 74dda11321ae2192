"""Errors as the services send them: HTTP 400 with a code and a message."""

from collections.abc import Mapping
from typing import ClassVar, TypeVar

__all__ = [
    "InvalidParameterCombination",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ResourceInUse",
    "ResourceLimitExceeded",
    "ResourceNotFound",
    "ResourceNotFoundException",
    "SerializationException",
    "UnknownOperationException",
    "ValidationException",
    "WireError",
    "find_operation",
]

_T = TypeVar("_T")


class WireError(Exception):
    """A request is refused; the client gets *code* and the message."""

    status: ClassVar[int] = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def code(self) -> str:
        return type(self).__name__


class ValidationException(WireError):
    """A member is missing or not acceptable."""


class SerializationException(WireError):
    """The body is not what the protocol says."""


class UnknownOperationException(WireError):
    """There is no such operation here."""


class ResourceInUse(WireError):
    """The name is taken."""


class ResourceLimitExceeded(WireError):
    """More is asked for than there is."""


class ResourceNotFound(WireError):
    """SageMaker: there is no such thing."""


class ResourceNotFoundException(WireError):
    """CloudWatch Logs: there is no such thing."""


class InvalidParameterCombination(WireError):
    """CloudWatch: parameters do not go together."""


class InvalidParameterValue(WireError):
    """CloudWatch: a parameter is not acceptable."""


class InvalidParameterException(WireError):
    """CloudWatch Logs: a parameter is not acceptable."""


def find_operation(operations: Mapping[str, _T], name: str) -> _T:
    """Return what implements the operation *name* of a service.

    Raises:
        UnknownOperationException: Nothing does.
    """
    if name not in operations:
        raise UnknownOperationException(
            f"The local platform runs training jobs only. It has no operation {name!r}, but {', '.join(operations)}."
        )
    return operations[name]
