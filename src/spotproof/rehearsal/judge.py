"""Is a rehearsal passed? Pure."""

from spotproof.errors import NotIdentical, SpotError
from spotproof.report import Summary

__all__ = ["judge"]


def judge(summary: Summary, *, needs_all_reclaims: bool = True) -> None:
    """Return if the rehearsal proved what it was asked to.

    Args:
        summary: What happened.
        needs_all_reclaims: Whether a planned reclaim that did not happen is a failure.

    Raises:
        NotIdentical: The models differ.
        SpotError: Fewer reclaims happened than were planned, so the rehearsal proved less than it was asked to.
    """
    verdict = summary.verdict
    if verdict is not None and not verdict.is_identical:
        what = f"The interrupted run ended with another model: {verdict.where}: {verdict.detail}."
        if summary.faults is not None:
            raise NotIdentical(
                what,
                why=f"\nWhat was done to it:\n{summary.faults.story()}\n",
                do="A resume must take the newest checkpoint that is whole, not the newest file. Let in one fault "
                f"alone to see which it is; all of it again: {summary.faults.command()}",
            )
        raise NotIdentical(
            what,
            why="Something that matters is not restored, or is not reproducible even without interruption.",
            do="Rehearse with --reclaim none: if that differs too, the program itself is not deterministic "
            "(seed_everything, workers=True).",
        )
    planned = summary.reclaims_planned
    if needs_all_reclaims and planned is not None and summary.num_interruptions < planned:
        raise SpotError(
            f"{summary.num_interruptions} of {planned} planned reclaims happened.",
            why=f"The job had finished at step {summary.final_step} before the others came due."
            if summary.final_step is not None
            else "The job had finished before the others came due.",
            do="Plan them earlier, or pass --allow-unfired if this is meant.",
        )
