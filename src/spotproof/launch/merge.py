"""Lines of many hosts into one sequence in the order of time, though some come late. Pure."""

import heapq
from collections.abc import Iterable
from datetime import datetime, timedelta

from spotproof.launch.logs import LogLine, Position

__all__ = ["LogMerge"]


class LogMerge:
    """Hold lines back until no older one is to be expected; tell the position behind each line that is let go.

    A line is let go once every host has shown a newer one, or once it is *patience* old: a host that is silent does not
    hold up the others. What comes later still is let go at once, out of order: nothing is lost, nothing comes twice.

    Args:
        patience: How late the lines of one host may be.
        after: The position that reading began behind.
    """

    def __init__(self, *, patience: timedelta, after: Position | None = None) -> None:
        self._patience = patience
        self._position = dict(after or {})
        self._newest: dict[str, datetime] = {}
        self._held: list[tuple[datetime, int, LogLine]] = []
        self._count = 0

    @property
    def position(self) -> Position:
        """Behind the last line that was let go."""
        return dict(self._position)

    def add(self, lines: Iterable[LogLine]) -> None:
        """Take *lines* in; those of one stream in their order."""
        for line in lines:
            # The count keeps lines of one instant in their order.
            heapq.heappush(self._held, (line.at, self._count, line))
            self._count += 1
            self._newest[line.host] = max(line.at, self._newest.get(line.host, line.at))

    def release(self, now: datetime, *, is_over: bool = False) -> Iterable[LogLine]:
        """Yield the lines that may go; :attr:`position` is behind the one yielded last.

        Args:
            now: By the clock that the lines' times are of.
            is_over: Whether no line will come any more: all go.
        """
        mark = max(min(self._newest.values(), default=now), now - self._patience)
        while self._held and (is_over or self._held[0][0] <= mark):
            line = heapq.heappop(self._held)[2]
            at_ms = round(line.at.timestamp() * 1000)
            last_ms, num = self._position.get(line.stream, (-1, 0))
            self._position[line.stream] = (at_ms, num + 1 if at_ms == last_ms else 1)
            yield line
