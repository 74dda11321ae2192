"""Times as a person writes them. Pure."""

import re
from datetime import datetime, timedelta, timezone

from spotproof.durations import parse_duration
from spotproof.errors import SpecError

__all__ = ["parse_since"]


def parse_since(text: str, now: datetime) -> datetime:
    """Return the moment that ``30m`` (ago) or ``2026-12-01T08:00Z`` names.

    Raises:
        SpecError: It is neither.
    """
    try:
        return now - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        # Python 3.10 reads no Z.
        moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise SpecError(f"--since {text!r} is no time.", do="Write 30m, 2h, or 2026-12-01T08:00Z.") from None
    if moment.tzinfo is None:
        raise SpecError(
            f"--since {text!r} does not say in which time zone.", do=f"Add Z for UTC, or +01:00: {text.strip()}Z."
        )
    return moment.astimezone(timezone.utc)
