"""By when a job must be done: an instant, or a time from its submission. Pure."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from spotproof.durations import parse_duration
from spotproof.errors import SpecError

__all__ = ["Deadline", "parse_deadline"]

_LONGEST_SECONDS = 366 * 86400
_FORM = "Write a time with its zone, as 2027-01-31T18:00:00+01:00, or a time from the submission, as 36h."


@dataclass(frozen=True, slots=True)
class Deadline:
    """Either *at* or *after_seconds* is set."""

    at: datetime | None = None
    """The instant itself, with its zone."""
    after_seconds: float | None = None
    """Seconds from the submission, more than 0."""

    def __post_init__(self) -> None:
        if (self.at is None) == (self.after_seconds is None):
            raise ValueError("A deadline is an instant or a time from the submission: one of both.")

    def instant(self, submitted_at: datetime) -> datetime:
        """Return when a job that is submitted at *submitted_at* must be done."""
        return self.at if self.at is not None else submitted_at + timedelta(seconds=self.after_seconds or 0.0)


def parse_deadline(value: Any) -> Deadline:
    """Return the deadline that job.yaml gives; YAML itself reads some times as such.

    Raises:
        SpecError: It has another form, or lacks the zone.
    """
    if isinstance(value, Deadline):
        return value
    if isinstance(value, str):
        try:
            seconds = parse_duration(value)
        except ValueError:
            pass
        else:
            if seconds <= 0:
                raise SpecError(f"{value!r} leaves no time.", do="Write for example 36h.")
            if seconds > _LONGEST_SECONDS:
                raise SpecError(f"{value!r} is too far away.", why="A deadline is within 366 days.", do=_FORM)
            return Deadline(after_seconds=seconds)
    shown = value.isoformat() if isinstance(value, date) else value
    try:
        # Python 3.10 reads no Z.
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    except ValueError:
        raise SpecError(f"{shown!r} is no deadline.", do=_FORM) from None
    if at.tzinfo is None:
        raise SpecError(f"{shown!r} has no time zone.", why="It would be another instant elsewhere.", do=_FORM)
    return Deadline(at=at)
