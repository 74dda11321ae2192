"""The small process that all supervisors are forked from: ours is large, and has threads."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, Literal

__all__ = ["ForkServer", "Keeper"]

Keeper = Literal["supervisor", "engine"]
"""What is forked: the parent of a host's processes, or the keeper of something that a container engine has."""

_CLOSE_TIMEOUT_SECONDS: Final = 10.0


class ForkServer:
    """Forks keepers, see ``_forkserver.py``. It starts with the first one, and anew if somebody has killed it.

    What was forked before outlives it. All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def fork(self, keeper: Keeper, control: int, output: int, report: int) -> int:
        """Return the process id of a new *keeper* that has those descriptors.

        Raises:
            OSError: It could not be made.
        """
        with self._lock:
            word, _, rest = self._ask(keeper, [control, output, report]).partition(" ")
        if word != "pid":
            raise ChildProcessError(rest or "the process that it is forked from was killed")
        return int(rest)

    def close(self) -> None:
        """End it; what it has forked goes on. Harmless twice."""
        with self._lock:
            self._end()

    def _ask(self, keeper: Keeper, fds: list[int]) -> str:
        if self._process is None or self._process.poll() is not None or self._socket is None:
            self._end()
            self._socket = self._start()
        socket.send_fds(self._socket, [keeper[:1].encode()], fds)
        answer = b""
        while not answer.endswith(b"\n"):
            data = self._socket.recv(4096)
            if not data:
                return ""
            answer += data
        return answer.decode(errors="replace").strip()

    def _start(self) -> socket.socket:
        ours, its = socket.socketpair()
        try:
            # A session of its own: Ctrl-C in a terminal is for the server, which ends its hosts in order.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("_forkserver.py"))],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ},
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
        return ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(_CLOSE_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
