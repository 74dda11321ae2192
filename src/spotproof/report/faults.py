"""What was done to a job on purpose, and what it cost. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

__all__ = ["FaultCount", "FaultSummary"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultCount:
    """How often one kind of fault happened in one attempt."""

    kind: str
    attempt: int | None
    """None for a fault of S3, which does not say in whose request it was."""
    count: int
    examples: tuple[str, ...]
    lost_steps: int | None = None
    """Of the attempt it happened in, whatever made it lose them; None for a fault of S3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultSummary:
    """The plan, and what came of it."""

    seed: int | None
    """Of the plan, if it was drawn; the same seed draws it again."""
    reclaim: str
    sync_faults: str
    s3_faults: str
    injected: tuple[FaultCount, ...]
    given: Mapping[int, Sequence[str]]
    """By attempt: the spoiled files that lay in S3 when it began, and how each was spoiled."""

    def with_lost_steps(self, lost_steps: Sequence[int]) -> "FaultSummary":
        """Return the same with what each attempt lost, by its number."""
        return replace(self, injected=tuple(self._priced(item, lost_steps) for item in self.injected))

    @staticmethod
    def _priced(item: FaultCount, lost_steps: Sequence[int]) -> FaultCount:
        if item.attempt is None or item.attempt >= len(lost_steps):
            return item
        return replace(item, lost_steps=lost_steps[item.attempt])

    def story(self) -> str:
        """Return what each attempt was given and suffered, in lines for people."""
        lines = []
        for attempt in sorted({*self.given, *(item.attempt for item in self.injected if item.attempt is not None)}):
            given = list(self.given.get(attempt, ()))
            more = f" and {len(given) - 3} more" if len(given) > 3 else ""
            if given:
                lines.append(f"  attempt {attempt} began with {'; '.join(given[:3])}{more}")
            suffered = [f"{item.kind} {item.count}×" for item in self.injected if item.attempt == attempt]
            if suffered:
                lines.append(f"  attempt {attempt} had faults: {', '.join(suffered)}")
        s3 = [f"{item.kind} {item.count}×" for item in self.injected if item.attempt is None]
        if s3:
            lines.append(f"  S3 had faults: {', '.join(s3)}")
        return "\n".join(lines)

    def command(self) -> str:
        """Return the options that let in the same reclaims and faults."""
        return f"--reclaim '{self.reclaim}' --sync-faults '{self.sync_faults}' --s3-faults '{self.s3_faults}'"
