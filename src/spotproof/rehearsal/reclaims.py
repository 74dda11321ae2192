"""When a rehearsal reclaims if nobody says: in the midst of the job, whose length an undisturbed run tells. Pure."""

from typing import Final

__all__ = ["AUTO_RECLAIM", "plan_reclaims"]

AUTO_RECLAIM: Final = "auto"
"""In the place of a schedule."""

_SHARES: Final = (0.5, 0.8)
"""Of the job. Late enough that a program which saves has saved, and that what is lost of one which does not is seen."""
_MIN_STEPS: Final = 3
_MIN_SECONDS: Final = 0.2


def plan_reclaims(*, num_steps: int | None, num_seconds: float) -> str:
    """Return a schedule of two reclaims.

    Args:
        num_steps: Of an undisturbed run; None if it tells none. Then reclaims come by the clock.
        num_seconds: That an undisturbed run trains.
    """
    if num_steps is None or num_steps < _MIN_STEPS:
        return ",".join(f"at:{max(_MIN_SECONDS, num_seconds * share):.1f}s" for share in _SHARES)
    return ",".join(f"step:{int(num_steps * share)}" for share in _SHARES)
