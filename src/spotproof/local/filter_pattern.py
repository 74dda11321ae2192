"""Filter patterns of CloudWatch Logs for lines of text. Pure.

``error`` and ``"two words"`` must all be in the message, ``?a ?b`` at least one of them, ``-term`` must not; ``%…%`` is
a regular expression. Source: AWS, "Filter pattern syntax for metric filters, subscription filters, filter log events".
"""

import re
from collections.abc import Callable
from typing import Final

__all__ = ["parse_filter_pattern"]

_TERM: Final = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|%([^%]*)%|([\w.:/=@#*+,;\'`~^&!|<>$-]+))(?=\s|$)')


def parse_filter_pattern(pattern: str) -> Callable[[str], bool]:
    """Return whether a message is one of those that *pattern* asks for.

    Raises:
        ValueError: It is no pattern, or one for JSON or columns, which are not known here.
    """
    needed: list[Callable[[str], bool]] = []
    optional: list[Callable[[str], bool]] = []
    refused: list[Callable[[str], bool]] = []
    text = pattern.strip()
    if text[:1] in ("{", "["):
        raise ValueError("The local platform has filter patterns for text only, not for JSON or columns.")
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise ValueError(f"Invalid filter pattern: a term with other characters needs quotes: {text[position:]!r}")
        sign, quoted, expression, word = match.groups()
        group = {"?": optional, "-": refused}.get(sign, needed)
        group.append(
            _matches(expression) if expression is not None else _holds(word or re.sub(r"\\(.)", r"\1", quoted))
        )
        position = match.end()

    def is_wanted(message: str) -> bool:
        if any(test(message) for test in refused) or not all(test(message) for test in needed):
            return False
        # Beside a term that is needed, optional ones say nothing.
        return bool(needed) or not optional or any(test(message) for test in optional)

    return is_wanted


def _holds(term: str) -> Callable[[str], bool]:
    return lambda message: term in message


def _matches(expression: str) -> Callable[[str], bool]:
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise ValueError(f"Invalid filter pattern: %{expression}% is no regular expression ({error}).") from None
    return lambda message: compiled.search(message) is not None
