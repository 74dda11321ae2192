"""What a loader is to go on from, and whether it was read to its end: the same for torch's loaders and for others."""

from typing import Any

__all__ = ["Pending"]


class Pending:
    """The part of a resumable loader that :class:`~spotproof.checkpoint.position.LoaderPosition` asks."""

    _to_resume: dict[str, Any] | None
    """Within a pass: taken up by the next ``iter()``."""
    _to_follow: dict[str, Any] | None
    """At a pass's end: the next ``iter()`` begins the one after it."""
    _is_over: bool

    def _ended(self) -> None:
        self._is_over = True

    @property
    def is_over(self) -> bool:
        """Whether the pass was read to its end, so that the next ``iter()`` begins another."""
        return self._is_over

    @property
    def pending(self) -> dict[str, Any] | None:
        """The state that was loaded and that no ``iter()`` has taken up yet."""
        return self._to_resume if self._to_resume is not None else self._to_follow
