"""The result of one look at a job. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Outcome", "error", "failed", "ok", "unknown", "warning"]

Outcome = Literal["ok", "warning", "error", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    subject: str
    """A field of the job, or what it is about: ``inputs.training``, ``quota``."""
    outcome: Outcome
    """``unknown``: it could not be seen from here; the text says why."""
    text: str
    """What was found."""
    do: str = ""
    """What to do about it."""


def ok(subject: str, text: str) -> Check:
    return Check(subject, "ok", text)


def warning(subject: str, text: str, do: str) -> Check:
    return Check(subject, "warning", text, do)


def error(subject: str, text: str, do: str) -> Check:
    return Check(subject, "error", text, do)


def unknown(subject: str, reason: str) -> Check:
    return Check(subject, "unknown", reason)


def failed(checks: Iterable[Check], *, is_strict: bool) -> list[Check]:
    """Return those that must keep the job from being launched."""
    return [check for check in checks if check.outcome == "error" or (is_strict and check.outcome == "warning")]
