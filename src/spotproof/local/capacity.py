"""The instances that there are, and who waits for them: first come, first served.

Only the head of the queue is served. A job of many hosts is not passed by small ones, however long it takes until
enough are free; that leaves some idle meanwhile, and is what keeps it from waiting for ever.
"""

import threading
from collections import OrderedDict

__all__ = ["Capacity"]


class Capacity:
    """A number of hosts, shared by all jobs. All methods may be called from any thread, and none of them blocks."""

    def __init__(self, num_hosts: int) -> None:
        self.num_hosts = num_hosts
        self._held: dict[str, int] = {}
        self._waiting: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_used(self) -> int:
        """How many hosts are given away."""
        with self._lock:
            return sum(self._held.values())

    def ask(self, job: str, num_hosts: int) -> bool:
        """Give *job* its hosts and return True, or put it at the end of the queue; once, however often it asks."""
        with self._lock:
            if job not in self._held:
                self._waiting.setdefault(job, num_hosts)
                self._serve()
            return job in self._held

    def has(self, job: str) -> bool:
        """Return whether *job* has its hosts."""
        with self._lock:
            return job in self._held

    def release(self, job: str) -> list[str]:
        """Take back what *job* has, or its place in the queue; return the jobs that got theirs through that."""
        with self._lock:
            self._held.pop(job, None)
            self._waiting.pop(job, None)
            return self._serve()

    def _serve(self) -> list[str]:
        served = []
        num_free = self.num_hosts - sum(self._held.values())
        while self._waiting:
            job, num_hosts = next(iter(self._waiting.items()))
            if num_hosts > num_free:
                break
            num_free -= num_hosts
            self._held[job] = self._waiting.pop(job)
            served.append(job)
        return served
