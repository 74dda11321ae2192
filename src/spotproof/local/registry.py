"""What runs for one state directory, so that the next server can end what a killed one left.

It finds them by a record with the start time, so that a reused pid is never killed, and on Linux by a mark in the
environment.
"""

import contextlib
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from spotproof.local.forkserver import ForkServer

__all__ = ["ENV_MARK", "Registry", "owner_id", "process_start_time", "remove_leaves"]

ENV_MARK: Final = "SPOTPROOF_LOCAL_HOST"
"""Set in every process tree, to ``<state directory id>/<what>``."""

_LEFTOVER_PATIENCE_SECONDS: Final = 3.0
_DYING_PATIENCE_SECONDS: Final = 10.0


def owner_id(state_dir: Path) -> str:
    """Return what the marks of one state directory's processes begin with."""
    return hashlib.sha256(str(state_dir).encode()).hexdigest()[:16]


def process_start_time(pid: int) -> str | None:
    """Return a text that tells process *pid* from an earlier or later one of that number; None if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        if sys.platform == "linux":
            return None
    result = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


class Registry:
    """The process trees of one state directory, on disk, so that the next server can end those of a killed one."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder, self.owner = folder, owner
        self.forks = ForkServer()
        folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End what starts processes; when all of them are gone."""
        self.forks.close()

    def add(self, pid: int, what: str, leaves: Sequence[str] = ()) -> None:
        """Record a supervisor, and the files that its tree leaves if nobody removes them."""
        record = {"pid": pid, "start_time": process_start_time(pid), "what": what, "leaves": list(leaves)}
        staged = self._folder / f"{pid}.staged"
        staged.write_text(json.dumps(record))
        staged.replace(self._folder / f"{pid}.json")

    def remove(self, pid: int) -> None:
        (self._folder / f"{pid}.json").unlink(missing_ok=True)

    def end_leftovers(self) -> list[str]:
        """End what an earlier, killed server left, and return once it is gone: what it was.

        Only for a server that owns the directory.
        """
        ended: list[str] = []
        leaves: list[str] = []
        for path in self._folder.glob("*.json"):
            try:
                record = json.loads(path.read_text())
                pid, start_time, what = int(record["pid"]), record["start_time"], str(record["what"])
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                continue
            # A supervisor ends by itself once it sees our predecessor's death: let it, it does so in order.
            deadline = time.monotonic() + _LEFTOVER_PATIENCE_SECONDS
            while _is_same(pid, start_time) and time.monotonic() < deadline:
                time.sleep(0.02)
            if _is_same(pid, start_time):
                _kill(pid)
                ended.append(what)
            leaves += record.get("leaves", ())
            path.unlink(missing_ok=True)
        ended += self.end_marked()
        # A busy machine takes its time to bury them. Until then they may write what is to be uploaded, and hold what is
        # to be removed.
        deadline = time.monotonic() + _DYING_PATIENCE_SECONDS
        while self.end_marked() and time.monotonic() < deadline:
            time.sleep(0.02)
        remove_leaves(leaves)
        return ended

    def end_marked(self, what: str = "") -> list[str]:
        """Kill whatever carries the mark of *what*, or any of ours: orphans of a supervisor that was killed."""
        mark = f"{ENV_MARK}={self.owner}/{what}".encode()
        ended = []
        for folder in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:  # another user's, or gone
                continue
            entries = environment.split(b"\0")
            found = [entry for entry in entries if entry == mark or (not what and entry.startswith(mark))]
            if found and int(folder.name) != os.getpid():
                _kill(int(folder.name))
                ended.append(found[0].decode(errors="replace").partition("/")[2])
        return ended


def remove_leaves(paths: Sequence[str]) -> None:
    """Remove what a process tree leaves: files, and control groups, which the kernel gives up once they are empty."""
    for path in map(Path, paths):
        deadline = time.monotonic() + _LEFTOVER_PATIENCE_SECONDS
        while path.exists():
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    break
                time.sleep(0.01)


def _is_same(pid: int, start_time: str) -> bool:
    return start_time is not None and process_start_time(pid) == start_time and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
