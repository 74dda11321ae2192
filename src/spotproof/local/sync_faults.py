"""What goes wrong with the sync agent: the grammar of ``--sync-faults``, and a pure answer for each upload.

    torn:0.2@seed=3 · corrupt:0.1 · lost:0.1 · late:5s · reorder · stall:20 · no-flush
    · download-fail:2 · download-lost:0.1 · none

An answer depends on the seed, the attempt, the host, the file's name and on how often it went up before, and not on the
clock or on what happened to other files: the same seed spoils the same files, however busy the machine is.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

from spotproof.schedule.items import Grammar, Words

__all__ = ["NO_SYNC_FAULTS", "Fate", "SyncFault", "SyncFaults", "parse_sync_faults"]

Order = Literal["newest", "random", "smallest"]
Outcome = Literal["whole", "torn", "corrupt", "lost"]

_SPOILING: Final[tuple[Outcome, ...]] = ("lost", "torn", "corrupt")
"""The first that hits an upload decides."""
_COMMON: Final = ("seed", "attempt", "files")
_GRAMMAR: Final = Grammar(
    subject="Sync fault",
    options={
        "torn": _COMMON,
        "corrupt": _COMMON,
        "lost": _COMMON,
        "late": (*_COMMON, "share"),
        "reorder": ("seed", "attempt"),
        "stall": ("attempt",),
        "no-flush": ("attempt",),
        "download-fail": ("attempt",),
        "download-lost": _COMMON,
    },
    examples="torn:0.2@seed=3 · corrupt:0.1 · lost:0.1 · late:5s@share=0.5 · reorder:newest · stall:20 · stall:30s · "
    "no-flush@attempt=1 · download-fail:2 · download-lost:0.1 · none",
    no_value=frozenset({"reorder", "no-flush"}),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncFault:
    """One item."""

    kind: str
    share: float = 1.0
    """Of the uploads, or downloads, that it hits."""
    seconds: float | None = None
    """``late``: how much. ``stall``: how long after the agent's start."""
    count: int | None = None
    """``stall``: after how many uploads. ``download-fail``: how many tries."""
    order: Order = "newest"
    seed: int = 0
    attempts: tuple[int, int | None] = (0, None)
    """The first and the last attempt in which it happens; None for all from the first on."""
    files: str = "*"
    """A shell pattern that names must match; ``*`` goes over slashes."""

    def is_in(self, attempt: int) -> bool:
        """Return whether it happens in *attempt*."""
        first, last = self.attempts
        return attempt >= first and (last is None or attempt <= last)

    def hits(self, *what: object) -> bool:
        """Return whether it hits the one upload or download that *what* describes."""
        return self.share >= 1 or self.draw(*what) < self.share

    def draw(self, *what: object) -> float:
        """Return a number from 0 up to 1 that *what* and the seed decide."""
        return random.Random("/".join(map(str, (self.kind, self.seed, *what)))).random()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fate:
    """What becomes of one upload; the agent believes that it went well in any case."""

    outcome: Outcome
    at_byte: int = 0
    """``torn``: the size it lands with. ``corrupt``: the byte that is altered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncFaults:
    """A plan for any number of agents."""

    text: str
    faults: tuple[SyncFault, ...]

    def fate(self, name: str, size_bytes: int, *, attempt: int, host: int, number: int) -> Fate:
        """Return what becomes of upload *number* (from 0) of the file *name*."""
        for outcome in _SPOILING:
            for fault in self._active(outcome, attempt, name):
                where = (attempt, host, name, number)
                # Of no bytes none can be cut off or altered.
                if (size_bytes or outcome == "lost") and fault.hits(*where):
                    return Fate(outcome=outcome, at_byte=int(fault.draw(*where, "byte") * size_bytes))
        return Fate(outcome="whole")

    def delay_seconds(self, name: str, *, attempt: int, host: int, number: int) -> float:
        """Return how late upload *number* of the file *name* is."""
        late = [fault for fault in self._active("late", attempt, name) if fault.hits(attempt, host, name, number)]
        return max((fault.seconds or 0.0 for fault in late), default=0.0)

    def order(
        self, names: Sequence[str], sizes: Mapping[str, int], *, attempt: int, host: int, look: int
    ) -> list[str] | None:
        """Return *names*, given oldest first, in the order to use; None for the order they have."""
        for fault in self._active("reorder", attempt):
            if fault.order == "random":
                ordered = sorted(names, key=lambda name: fault.draw(attempt, host, name, look))
            elif fault.order == "smallest":
                ordered = sorted(names, key=lambda name: (sizes[name], name))
            else:
                ordered = list(reversed(names))
            return ordered if ordered != list(names) else None
        return None

    def is_stalled(self, *, attempt: int, num_uploads: int, seconds: float) -> bool:
        """Return whether an agent has stopped for good after that many uploads and that time."""
        return any(
            (fault.count is not None and num_uploads >= fault.count)
            or (fault.seconds is not None and seconds >= fault.seconds)
            for fault in self._active("stall", attempt)
        )

    def is_flushed(self, *, attempt: int) -> bool:
        """Return whether what is left is uploaded when a job ends, and in the grace before it is killed."""
        return not self._active("no-flush", attempt)

    def download_breaks(self, *, attempt: int, number: int) -> bool:
        """Return whether try *number* (from 0) to bring the checkpoints back breaks off."""
        return any(number < (fault.count or 0) for fault in self._active("download-fail", attempt))

    def is_download_lost(self, name: str, *, attempt: int, host: int) -> bool:
        """Return whether the file is left out when the checkpoints are brought back."""
        return any(fault.hits(attempt, host, name) for fault in self._active("download-lost", attempt, name))

    def _active(self, kind: str, attempt: int, name: str | None = None) -> list[SyncFault]:
        return [
            fault
            for fault in self.faults
            if fault.kind == kind and fault.is_in(attempt) and (name is None or fnmatchcase(name, fault.files))
        ]


NO_SYNC_FAULTS: Final = SyncFaults(text="none", faults=())


def parse_sync_faults(text: str) -> SyncFaults:
    """Return the plan that *text* describes: items separated by commas, or ``none``.

    Raises:
        SpecError: Names the bad item, why it is bad, and what would be right.
    """
    faults = tuple(_fault(words) for words in _GRAMMAR.parse(text))
    return SyncFaults(text=text, faults=faults) if faults else NO_SYNC_FAULTS


def _fault(words: Words) -> SyncFault:
    seed, attempts, files = words.seed(), _attempts(words), words.options.get("files", "*")
    if not files:
        raise words.bad("files is empty.", "Write a pattern of names, such as @files=packs/*.")
    kind = words.kind
    if kind in ("torn", "corrupt", "lost", "download-lost"):
        return SyncFault(kind=kind, share=words.share(), seed=seed, attempts=attempts, files=files)
    if kind == "late":
        share = words.share(words.options.get("share", "1"))
        return SyncFault(kind=kind, share=share, seconds=words.duration(), seed=seed, attempts=attempts, files=files)
    if kind == "reorder":
        return SyncFault(kind=kind, order=_order(words), seed=seed, attempts=attempts)
    if kind == "no-flush":
        words.no_value()
        return SyncFault(kind=kind, attempts=attempts)
    is_count = re.fullmatch(r"\d{1,9}", words.value, re.ASCII)
    if kind == "download-fail":
        if not is_count or int(words.value) == 0:
            raise words.bad(f"{words.value!r} is not a number of tries.", "Write download-fail:2.")
        return SyncFault(kind=kind, count=int(words.value), attempts=attempts)
    if is_count:
        return SyncFault(kind=kind, count=int(words.value), attempts=attempts)
    if not re.fullmatch(r"[\d.]+[a-z]+", words.value, re.ASCII):
        raise words.bad(
            f"{words.value!r} is neither a number of uploads nor a duration.", "Write stall:20 or stall:30s."
        )
    return SyncFault(kind=kind, seconds=words.duration(), attempts=attempts)


def _order(words: Words) -> Order:
    orders: dict[str, Order] = {"": "newest", "newest": "newest", "random": "random", "smallest": "smallest"}
    if words.value not in orders:
        raise words.bad(
            f"there is no order {words.value!r}.", "Write reorder:newest, reorder:random or reorder:smallest."
        )
    return orders[words.value]


def _attempts(words: Words) -> tuple[int, int | None]:
    text = words.options.get("attempt", "0-")
    match = re.fullmatch(r"(\d{1,9})(-(\d{1,9})?)?", text, re.ASCII)
    if match is None or (match[3] and int(match[3]) < int(match[1])):
        raise words.bad(
            f"attempt {text!r} is no attempt and no range of them.",
            "They are counted from 0: write @attempt=1, @attempt=0-2 or @attempt=3-.",
        )
    first = int(match[1])
    return first, (first if match[2] is None else int(match[3]) if match[3] else None)
