"""Which checkpoints to keep: a pure decision. Loads no torch."""

from collections.abc import Collection

__all__ = ["steps_to_keep"]


def steps_to_keep(
    committed: Collection[int], *, safe: Collection[int], keep: int, resumed_from: int | None
) -> frozenset[int]:
    """Return the steps that must stay.

    Kept are the newest *keep* committed ones; the newest *keep* of those that are safe, because a mirror that lags must
    not be told to delete what it has while it lacks what replaces it; and the one resumed from until *keep* newer
    ones are safe.

    Args:
        committed: Steps with a manifest.
        safe: Of these, the steps that would survive the loss of this machine now (uploaded, where a sync agent works;
            else all).
        keep: >= 2, because the newest may turn out damaged.
        resumed_from: The step this attempt started from, if any.
    """
    newest = sorted(committed, reverse=True)[:keep]
    newest_safe = sorted(safe, reverse=True)[:keep]
    kept = {*newest, *newest_safe}
    if resumed_from is not None and sum(step > resumed_from for step in safe) < keep:
        kept.add(resumed_from)
    return frozenset(kept)
