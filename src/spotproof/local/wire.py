"""Errors as the services send them: HTTP 400 with a code and a message."""

from typing import ClassVar

__all__ = [
    "InvalidParameterException",
    "ResourceInUse",
    "ResourceNotFound",
    "ResourceNotFoundException",
    "SerializationException",
    "UnknownOperationException",
    "ValidationException",
    "WireError",
]


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


class ResourceNotFound(WireError):
    """SageMaker: there is no such thing."""


class ResourceNotFoundException(WireError):
    """CloudWatch Logs: there is no such thing."""


class InvalidParameterException(WireError):
    """CloudWatch Logs: a parameter is not acceptable."""
