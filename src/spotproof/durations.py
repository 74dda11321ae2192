"""``30s``, ``2m``, ``36h``: how durations are written, in options, schedules and job.yaml. Pure."""

import re
from typing import Final

__all__ = ["parse_duration"]

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Return the seconds in ``30s``, ``2m``, ``1h``, ``1.5s``, ``250ms``.

    Raises:
        ValueError: *text* is not a number with a unit.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a duration.")
    return float(match[1]) * _UNIT_SECONDS[match[2]]
