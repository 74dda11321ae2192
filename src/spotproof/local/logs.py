"""Log streams: one file a host for the job's whole life, written as CloudWatch Logs would show it.

A line is ``<milliseconds since 1970> <message>``. Times never go back within a stream, so that readers who ask for what
came since a time miss nothing.
"""

import heapq
import io
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["LOG_GROUP", "LogReader", "LogWriter", "Place", "read_lines_since"]

LOG_GROUP: Final = "/aws/sagemaker/TrainingJobs"
_MAX_LINE_BYTES: Final = 256 * 1024
"""Source: CloudWatch Logs quotas, event size as it was for years; longer lines are cut into several events."""
_MAX_PAGE_BYTES: Final = 1024 * 1024
_MAX_PAGE_EVENTS: Final = 10000
_SUFFIX: Final = ".log"
Place = tuple[int, str, int]
"""Of an event among those of all streams: milliseconds, stream, byte offset. In this order they are found."""
_MAX_READ_AGAIN_BYTES: Final = 16 * 1024 * 1024
"""Of each log, when a server comes back: the last value of each metric stands near its end."""


class LogWriter:
    """Append a host's output to its stream; hand out whole lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        if self._file.seek(0, os.SEEK_END) > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # a server was killed while it wrote a line
                self._file.write(b"\n")
        self._rest = b""
        self._last_ms = 0
        self._lock = threading.Lock()

    def write(self, data: bytes, at: float) -> list[str]:
        """Append *data*; return the lines that it completed, which can be read back from the file by then."""
        with self._lock:
            *lines, rest = (self._rest + data).split(b"\n")
            while len(rest) > _MAX_LINE_BYTES:
                lines.append(rest[:_MAX_LINE_BYTES])
                rest = rest[_MAX_LINE_BYTES:]
            self._rest = rest
            return self._append(lines, at)

    def end_line(self, at: float) -> list[str]:
        """Complete an unfinished line: its process is gone."""
        with self._lock:
            rest, self._rest = self._rest, b""
            return self._append([rest], at)

    def _append(self, lines: list[bytes], at: float) -> list[str]:
        self._last_ms = max(self._last_ms, int(at * 1000))
        texts = [
            part.decode(errors="replace").replace("\r", " ").rstrip()
            for line in lines
            for part in _cut(line.rstrip(b"\r"))
        ]
        texts = [text for text in texts if text]  # CloudWatch Logs has no empty events
        if texts:
            self._file.write("".join(f"{self._last_ms} {text}\n" for text in texts).encode(errors="replace"))
        return texts

    def close(self) -> None:
        self._file.close()


def _cut(line: bytes) -> Iterator[bytes]:
    for start in range(0, max(1, len(line)), _MAX_LINE_BYTES):
        yield line[start : start + _MAX_LINE_BYTES]


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int
    at_ms: int
    message: str


class LogReader:
    """The streams of all jobs below one directory, in the words of CloudWatch Logs. Streams outlive the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, stream: str) -> Path:
        """Return the file of ``<job>/algo-1-<time>``.

        Raises:
            ValueError: That can't be a stream's name.
        """
        if not re.fullmatch(r"[A-Za-z0-9\-]{1,64}/[A-Za-z0-9\-]{1,64}", stream):
            raise ValueError(f"{stream!r} is not a stream.")
        return self._folder / (stream + _SUFFIX)

    def has_streams(self) -> bool:
        """Return whether any job has written a line."""
        return next(self._folder.glob(f"*/*{_SUFFIX}"), None) is not None

    def streams(self, prefix: str = "") -> list[str]:
        """Return the names of all streams that begin with *prefix*, sorted."""
        job, slash, _ = prefix.partition("/")
        is_one_job = bool(slash) and re.fullmatch(r"[A-Za-z0-9\-]{1,64}", job) is not None
        paths = self._folder.glob(f"{job if is_one_job else '*'}/*{_SUFFIX}")
        names = [path.relative_to(self._folder).as_posix()[: -len(_SUFFIX)] for path in paths]
        return sorted(name for name in names if name.startswith(prefix))

    def describe(self, stream: str) -> dict[str, Any]:
        """Return one stream as DescribeLogStreams does."""
        path = self.path(stream)
        first, last = _first_and_last(path)
        entry = {"logStreamName": stream, "storedBytes": 0, "creationTime": first or int(path.stat().st_mtime * 1000)}
        if first is not None and last is not None:
            entry |= {"firstEventTimestamp": first, "lastEventTimestamp": last, "lastIngestionTime": last}
        return entry

    def events(
        self,
        stream: str,
        *,
        token: str | None = None,
        start_ms: int = 0,
        end_ms: int | None = None,
        limit: int | None = None,
        is_from_head: bool = False,
    ) -> dict[str, Any]:
        """Return one page, as GetLogEvents does: inclusive start, exclusive end, tokens that repeat at the end.

        Raises:
            FileNotFoundError: There is no such stream.
            ValueError: The token is none of ours.
        """
        path = self.path(stream)
        if token is not None:
            direction, offset = _parse_token(token)
        else:
            direction, offset = ("f", 0) if is_from_head else ("b", path.stat().st_size)
        page = _Page(start_ms, end_ms, min(limit or _MAX_PAGE_EVENTS, _MAX_PAGE_EVENTS))
        if direction == "f":
            page.fill(_read_forward(path, offset))
            first, last = (page.lines[0].start if page.lines else offset), max(offset, page.seen_end)
        else:
            page.fill(reversed(_read_backward(path, offset)))
            page.lines.reverse()
            first, last = (page.lines[0].start, page.lines[-1].end) if page.lines else (offset, offset)
        return {
            "events": [
                {"timestamp": line.at_ms, "message": line.message, "ingestionTime": line.at_ms} for line in page.lines
            ],
            "nextForwardToken": f"f/{last:020d}",
            "nextBackwardToken": f"b/{first:020d}",
        }

    def messages(self, stream: str) -> Iterator[tuple[int, str]]:
        """Yield the time, in milliseconds since 1970, and the text of each event of a stream, from its begin."""
        for line in _read_forward(self.path(stream), 0):
            yield line.at_ms, line.message

    def search(
        self,
        streams: Iterable[str],
        is_wanted: Callable[[str], bool],
        *,
        start_ms: int = 0,
        end_ms: int | None = None,
        after: Place | None = None,
        limit: int,
    ) -> list[tuple[Place, dict[str, Any]]]:
        """Return the first *limit* events behind *after*, as FilterLogEvents does: by time, both ends inclusive.

        Each comes with its place, from which the next search goes on. Memory is bounded by *limit*.
        """
        found = (
            ((line.at_ms, stream, line.start), line.message)
            for stream in streams
            for line in _read_forward(self.path(stream), 0)
            if line.at_ms >= start_ms and (end_ms is None or line.at_ms <= end_ms) and is_wanted(line.message)
        )
        first = heapq.nsmallest(limit, (item for item in found if after is None or item[0] > after))
        return [(place, _found_event(*place, message)) for place, message in first]


def _found_event(at_ms: int, stream: str, offset: int, message: str) -> dict[str, Any]:
    identity = f"{at_ms:020d}{zlib.crc32(stream.encode()):010d}{offset:026d}"
    return {
        "logStreamName": stream,
        "timestamp": at_ms,
        "message": message,
        "ingestionTime": at_ms,
        "eventId": identity,
    }


class _Page:
    """The lines of one answer."""

    def __init__(self, start_ms: int, end_ms: int | None, limit: int) -> None:
        self._start_ms, self._end_ms, self._limit = start_ms, end_ms, limit
        self.lines: list[_Line] = []
        self.seen_end = 0

    def fill(self, lines: Iterable[_Line]) -> None:
        size_bytes = 0
        for line in lines:
            if line.at_ms >= self._start_ms and (self._end_ms is None or line.at_ms < self._end_ms):
                size_bytes += line.end - line.start
                if len(self.lines) == self._limit or (self.lines and size_bytes > _MAX_PAGE_BYTES):
                    return
                self.lines.append(line)
            self.seen_end = line.end


def _parse_token(token: str) -> tuple[str, int]:
    match = re.fullmatch(r"([fb])/(\d{1,20})", token)
    if match is None:
        raise ValueError(f"{token!r} is not a token.")
    return match[1], int(match[2])


def _read_forward(path: Path, offset: int) -> Iterator[_Line]:
    with path.open("rb") as file:
        file.seek(offset)
        yield from _parse_lines(file, offset)


def _read_backward(path: Path, offset: int, num_bytes: int = 2 * _MAX_PAGE_BYTES) -> list[_Line]:
    """Return the lines of the last *num_bytes*, two pages' worth, before *offset*."""
    start = max(0, offset - num_bytes)
    with path.open("rb") as file:
        file.seek(start)
        if start > 0:
            start += len(file.readline())  # begins inside a line
        data = file.read(max(0, offset - start))
    return list(_parse_lines(io.BytesIO(data), start))


def _parse_lines(raws: Iterable[bytes], start: int) -> Iterator[_Line]:
    for raw in raws:
        if not raw.endswith(b"\n"):
            return  # being written
        at, space, message = raw[:-1].decode(errors="replace").partition(" ")
        if space and at.isdigit():
            yield _Line(start, start + len(raw), int(at), message)
        start += len(raw)


def read_lines_since(paths: Sequence[Path], since: float) -> Iterator[tuple[float, str]]:
    """Yield the time and text of the lines of several streams from *since* on, in the order of their times."""
    ends = [_read_backward(path, path.stat().st_size, _MAX_READ_AGAIN_BYTES) for path in paths if path.exists()]
    for line in heapq.merge(*ends, key=lambda line: line.at_ms):
        if line.at_ms >= int(since * 1000):
            yield line.at_ms / 1000, line.message


def _first_and_last(path: Path) -> tuple[int | None, int | None]:
    first = next(_read_forward(path, 0), None)
    last = _read_backward(path, path.stat().st_size)[-1:]
    return (first.at_ms if first else None), (last[0].at_ms if last else None)
