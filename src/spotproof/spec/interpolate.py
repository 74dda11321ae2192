"""``${VARIABLE}`` and ``${VARIABLE:-default}`` in a text. Pure."""

import re
from collections.abc import Mapping

from spotproof.errors import SpecError

__all__ = ["UnsetVariable", "has_variables", "interpolate"]

_REFERENCE = re.compile(r"\$(?P<escaped>\$)?\{(?P<body>[^}]*)(?P<end>\})?")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


class UnsetVariable(SpecError):
    """A variable is not set, or its reference is not one; *offset* says where in the text, in characters."""

    def __init__(self, what: str, *, why: str = "", do: str = "", offset: int) -> None:
        super().__init__(what, why=why, do=do)
        self.offset = offset


def has_variables(text: str) -> bool:
    """Return whether *text* refers to a variable; an escaped ``$${`` is none."""
    return any(not match["escaped"] for match in _REFERENCE.finditer(text))


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Return *text* with the variables' values; ``$${`` is a plain ``${``. Values are not looked through again.

    As in a shell, a default also stands for a variable that is set to nothing.

    Raises:
        UnsetVariable: A variable without a default is not set, or a reference has another form.
    """

    def replace(match: "re.Match[str]") -> str:
        if match["escaped"]:
            return match[0][1:]
        body = _BODY.fullmatch(match["body"])
        if body is None or not match["end"]:
            raise UnsetVariable(
                f"{match[0]!r} names no variable.",
                why="The forms are ${NAME} and ${NAME:-default}.",
                do="Correct it, or write $${ for a plain ${.",
                offset=match.start(),
            )
        name, default = body["name"], body["default"]
        value = environment.get(name)
        if value is None and default is None:
            raise UnsetVariable(
                f"The variable {name} is not set.",
                do=f"Set it (export {name}=…), or give a default: ${{{name}:-…}}.",
                offset=match.start(),
            )
        return default.removeprefix(":-") if default is not None and not value else value or ""

    return _REFERENCE.sub(replace, text)
