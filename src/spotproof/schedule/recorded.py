"""The recorded traces that come with Spotproof, by name: ``recorded:aws-p3`` wherever a trace file can stand."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

__all__ = ["RECORDED", "RECORDED_PREFIX", "read_recorded"]

RECORDED_PREFIX: Final = "recorded:"

RECORDED: Final[Mapping[str, str]] = {
    "aws-p3": "parcae/aws-p3.csv",
    "aws-g4dn-us-east-1c": "bamboo/aws-g4dn-us-east-1c.csv",
    "aws-g4dn-us-east-1d": "bamboo/aws-g4dn-us-east-1d.csv",
}
"""Name to file. Origin and licence: ``traces/README.md``."""


def read_recorded(name: str) -> str:
    """Return the text of the trace *name*.

    Raises:
        KeyError: There is none of that name.
    """
    return (files("spotproof.schedule") / "traces" / RECORDED[name]).read_text(encoding="utf-8")
