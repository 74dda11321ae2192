"""When a rehearsal reclaims if nobody says: in the midst of the job, whose length an undisturbed run tells. Pure."""

from typing import Final

__all__ = ["AUTO_RECLAIM", "plan_reclaims"]

AUTO_RECLAIM: Final = "auto"
"""In the place of a schedule."""

_SHARES: Final = (0.5, 0.8)
"""Of the job. Late enough that a program which saves has saved, and that what is lost of one which does not is seen."""
_AFTER_SAVE: Final = 0.1
"""Of the job, between its first save and the first reclaim: two runs are not equally fast, and S3 comes after."""
_MIN_STEPS: Final = 3
_MIN_SECONDS: Final = 0.2


def plan_reclaims(*, num_steps: int | None, num_seconds: float, first_saved_step: int | None) -> str:
    """Return a schedule of two reclaims, the first behind the first save if that is possible.

    Args:
        num_steps: Of an undisturbed run; None if it tells none. Then reclaims come by the clock.
        num_seconds: That an undisturbed run trains.
        first_saved_step: Above 0, of its first checkpoint; None if it made none.
    """
    if num_steps is None or num_steps < _MIN_STEPS:
        return ",".join(f"at:{max(_MIN_SECONDS, num_seconds * share):.1f}s" for share in _SHARES)
    first, second = (int(num_steps * share) for share in _SHARES)
    if first_saved_step is not None:
        behind_save = first_saved_step + int(num_steps * _AFTER_SAVE)
        # A program that is nearly done when it saves first is reclaimed before: that is what would happen to it.
        first = max(first, behind_save) if behind_save < second else first
    return f"step:{first},step:{second}"
