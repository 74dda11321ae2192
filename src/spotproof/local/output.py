"""What the hosts of one job print: a log stream each, and the metrics in them."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spotproof.local.logs import LogWriter, read_lines_since
from spotproof.local.metrics import MetricReader, MetricValue

__all__ = ["JobOutput"]


class JobOutput:
    """One job's streams and metrics, over all its attempts.

    Streams may be written from any thread; the metrics are for whoever holds the job's lock.

    Args:
        folder: Of the job's streams.
        definitions: MetricDefinitions of the request.
        num_hosts: As many streams.
        stamp: In their names.
    """

    def __init__(self, folder: Path, definitions: Sequence[Mapping[str, str]], *, num_hosts: int, stamp: int) -> None:
        self.stamp = stamp
        self._paths = [folder / f"algo-{index + 1}-{stamp}.log" for index in range(num_hosts)]
        self._writers: dict[int, LogWriter] = {}
        self._metrics = MetricReader(definitions)
        self._lock = threading.Lock()

    def to_document(self) -> dict[str, Any]:
        """Return what outlives the server beside the streams, as JSON can hold it."""
        metrics = [[item.name, item.value, item.at] for item in self.metrics]
        return {"log_stamp": self.stamp, "metrics": metrics}

    def load(self, document: Mapping[str, Any], since: float) -> None:
        """Go on where :meth:`to_document` was, and read what was logged from *since* on, in seconds since 1970.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        for name, value, at in document["metrics"]:
            self._metrics.last[name] = MetricValue(name, value, at)
        for at, line in read_lines_since(self._paths, since):
            self._metrics.read(line, at)

    @property
    def metrics(self) -> list[MetricValue]:
        """The last value of each metric."""
        return list(self._metrics.last.values())

    def write(self, host: int, data: bytes, at: float) -> list[str]:
        """Append to a host's stream, which begins with its first output, as the service's do; return its new lines."""
        with self._lock:
            if host not in self._writers:
                self._writers[host] = LogWriter(self._paths[host])
            writer = self._writers[host]
        return writer.write(data, at)

    def end_lines(self, at: float) -> list[str]:
        """Complete what the hosts left without an end, for they are gone; return those lines."""
        with self._lock:
            writers = list(self._writers.values())
        return [line for writer in writers for line in writer.end_line(at)]

    def read(self, line: str, at: float) -> int | None:
        """Take a line's metrics; return the step that it reports, if it does."""
        return self._metrics.read(line, at)

    def close(self) -> None:
        """Let go of the files; what is written later opens them again."""
        with self._lock:
            for writer in self._writers.values():
                writer.close()
            self._writers.clear()
