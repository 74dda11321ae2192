"""Times and deadlines as a person writes them. Pure."""

import re
from datetime import datetime, timedelta, timezone

from spotproof.errors import SpecError
from spotproof.schedule import parse_duration

__all__ = ["parse_deadline", "parse_since"]


def parse_since(text: str, now: datetime) -> datetime:
    """Return the moment that ``30m`` (ago) or ``2026-12-01T08:00Z`` names.

    Raises:
        SpecError: It is neither.
    """
    return _parse(text, now, option="--since", sign=-1, example="30m, 2h, or 2026-12-01T08:00Z")


def parse_deadline(text: str, now: datetime) -> datetime:
    """Return the moment that ``36h`` (from now) or ``2026-12-01T08:00Z`` names.

    Raises:
        SpecError: It is neither.
    """
    return _parse(text, now, option="deadline", sign=1, example="36h, or 2026-12-01T08:00Z")


def _parse(text: str, now: datetime, *, option: str, sign: int, example: str) -> datetime:
    try:
        return now + sign * timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        # Python 3.10 reads no Z, and no time without minutes.
        moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise SpecError(f"{option} {text!r} is no time.", do=f"Write {example}.") from None
    if moment.tzinfo is None:
        raise SpecError(
            f"{option} {text!r} does not say in which time zone.", do=f"Add Z for UTC, or +01:00: {text.strip()}Z."
        )
    return moment.astimezone(timezone.utc)
