"""Page tokens: where the next page of a list begins, in a form that clients only hand back. Pure."""

import base64
import binascii
import json
from typing import Any

__all__ = ["make_token", "parse_token"]


def make_token(place: Any) -> str:
    """Return the token of a JSON value."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def parse_token(token: str) -> Any:
    """Return what the token was made of.

    Raises:
        ValueError: It was not made here.
    """
    try:
        return json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error, RecursionError):
        raise ValueError("The page token is none of ours.") from None
