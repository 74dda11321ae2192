"""Where the keepers of hosts come from. A script of its own: ``python -I -S _forkserver.py``, stdlib only.

A Python that starts and imports all it needs costs 40 ms of processor time, a fork of one that has done so 1 ms.

Stdin is a Unix socket. Each message is one byte with three descriptors, CONTROL, OUTPUT and REPORT: ``s`` for a
supervisor (``_supervisor.py``) that has them, ``e`` for the keeper of a container or a network (``_engine.py``). It is
answered with a line: ``pid N``, or ``error TEXT``. REPORT stays open here,
too, until the supervisor is reaped; its last line is ``gone CODE`` (-N for signal N). When the socket ends, which is
what the server's death looks like from here, this process leaves; supervisors see that death themselves.
"""

import os
import select
import signal
import socket
import sys
import traceback
from importlib import import_module
from typing import NoReturn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spotproof.local import _supervisor
else:
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # last: neighbours have names of the standard library
    import _supervisor

_REPORT_FD = 3
_NUM_DESCRIPTORS = 3


def main() -> int:
    """Fork and reap until the server is gone."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    server = socket.socket(fileno=0)
    reports: dict[int, int] = {}
    poll = select.poll()
    poll.register(server, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake_read:
                os.read(wake_read, 4096)
            elif not _serve(server, reports):
                return 0
        _reap(reports)


def _serve(server: socket.socket, reports: dict[int, int]) -> bool:
    """Answer one message; return False if there are no more."""
    message, fds, _, _ = socket.recv_fds(server, 1, _NUM_DESCRIPTORS)
    if not message:
        return False
    try:
        if len(fds) < _NUM_DESCRIPTORS:
            raise OSError(0, "too many open files")
        pid = os.fork()
        if pid == 0:
            _become(message, *fds)
        reports[pid] = fds.pop()
        answer = f"pid {pid}"
    except OSError as error:
        answer = f"error {error.strerror}"
    for fd in fds:
        os.close(fd)
    server.sendall(answer.encode() + b"\n")
    return True


def _become(keeper: bytes, control: int, output: int, report: int) -> NoReturn:
    """In the child: keep the three descriptors and nothing else."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for place, fd in ((_supervisor.CONTROL_FD, control), (1, output), (2, output)):
            os.dup2(fd, place)
        os.dup2(report, _REPORT_FD, inheritable=False)
        os.closerange(_REPORT_FD + 1, os.sysconf("SC_OPEN_MAX"))  # reports of others, among them
        # The engine's is loaded here only: it is rare, and loads much.
        run = import_module("_engine").run if keeper == b"e" else _supervisor.run
        code = run(_REPORT_FD)
    except BaseException:  # whatever it is, this must not go on as a second fork server
        traceback.print_exc()
    finally:
        os._exit(code)


def _reap(reports: dict[int, int]) -> None:
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            report = reports.pop(pid)
            try:
                os.write(report, f"gone {os.waitstatus_to_exitcode(status)}\n".encode())
            except BrokenPipeError:
                pass  # nobody watches it any more
            os.close(report)
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main())
