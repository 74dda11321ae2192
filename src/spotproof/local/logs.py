"""Log streams: one file a host for the job's whole life, written as CloudWatch Logs would show it.

A line is ``<milliseconds since 1970> <message>``. Times never go back within a stream, so that readers who ask for what
came since a time miss nothing.
"""

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["LOG_GROUP", "LogReader", "LogWriter"]

LOG_GROUP: Final = "/aws/sagemaker/TrainingJobs"
_MAX_LINE_BYTES: Final = 256 * 1024
"""Source: CloudWatch Logs quotas, event size as it was for years; longer lines are cut into several events."""
_MAX_PAGE_BYTES: Final = 1024 * 1024
_MAX_PAGE_EVENTS: Final = 10000
_SUFFIX: Final = ".log"


class LogWriter:
    """Append a host's output to its stream; hand out whole lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
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

    def streams(self, prefix: str = "") -> list[str]:
        """Return the names of all streams that begin with *prefix*, sorted."""
        paths = self._folder.glob(f"*/*{_SUFFIX}")
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
        size = path.stat().st_size
        direction, offset = (
            _parse_token(token) if token else ("f" if is_from_head else "b", 0 if is_from_head else size)
        )
        limit = min(limit or _MAX_PAGE_EVENTS, _MAX_PAGE_EVENTS)
        start, lines = _read_forward(path, offset) if direction == "f" else _read_backward(path, min(offset, size))
        kept: list[_Line] = []
        page_bytes = 0
        forward_end = start
        for line in lines if direction == "f" else reversed(list(lines)):
            if line.at_ms >= start_ms and (end_ms is None or line.at_ms < end_ms):
                page_bytes += len(line.message) + 26
                if len(kept) == limit or (kept and page_bytes > _MAX_PAGE_BYTES):
                    break
                kept.append(line)
            forward_end = max(forward_end, line.end)
        if direction == "b":
            kept.reverse()
        events = [{"timestamp": line.at_ms, "message": line.message, "ingestionTime": line.at_ms} for line in kept]
        first = kept[0].end - _size(kept[0]) if kept else (start if direction == "f" else min(offset, size))
        return {
            "events": events,
            "nextForwardToken": f"f/{forward_end if direction == 'f' else (kept[-1].end if kept else min(offset, size)):020d}",
            "nextBackwardToken": f"b/{first:020d}",
        }


def _size(line: _Line) -> int:
    return len(str(line.at_ms)) + 1 + len(line.message.encode(errors="replace")) + 1


def _parse_token(token: str) -> tuple[str, int]:
    match = re.fullmatch(r"([fb])/(\d{1,20})", token)
    if match is None:
        raise ValueError(f"{token!r} is not a token.")
    return match[1], int(match[2])


def _read_forward(path: Path, offset: int) -> tuple[int, Iterator[_Line]]:
    def lines() -> Iterator[_Line]:
        with path.open("rb") as file:
            file.seek(offset)
            end = offset
            for raw in file:
                if not raw.endswith(b"\n"):
                    return  # being written
                end += len(raw)
                if (line := _parse_line(raw, end)) is not None:
                    yield line

    return offset, lines()


def _read_backward(path: Path, offset: int) -> tuple[int, Iterator[_Line]]:
    start = max(0, offset - 2 * _MAX_PAGE_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(offset - start)
    if start > 0:
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    found, end = [], start
    for raw in _split(data):
        end += len(raw)
        if (line := _parse_line(raw, end)) is not None:
            found.append(line)
    return start, iter(found)


def _split(data: bytes) -> Iterator[bytes]:
    *lines, _ = data.split(b"\n")
    for line in lines:
        yield line + b"\n"


def _parse_line(raw: bytes, end: int) -> _Line | None:
    at, space, message = raw.rstrip(b"\n").decode(errors="replace").partition(" ")
    return _Line(end, int(at), message) if space and at.isdigit() else None


def _first_and_last(path: Path) -> tuple[int | None, int | None]:
    with path.open("rb") as file:
        first = _parse_line(file.readline(_MAX_LINE_BYTES * 4), 0)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4 * _MAX_LINE_BYTES))
        lines = [line for raw in _split(file.read()) if (line := _parse_line(raw, 0)) is not None]
    return (first.at_ms if first else None), (lines[-1].at_ms if lines else None)
