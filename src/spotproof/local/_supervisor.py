"""The parent of one host's process tree, forked by ``_forkserver.py``. Standard library only.

It makes control groups, sets the stage (namespaces, mounts, name: ``_stage.py``), starts the job's command, passes
signals on, and makes sure that the whole tree is gone when it should be. It reads one line of JSON and then single-byte
commands from stdin, and writes lines to its report. When stdin ends, which is what the server's death looks like from
here, it kills the tree and leaves: the server needs no chance to clean up.

    commands   G go: run the command · T SIGTERM to the command · K SIGKILL to everything
    reports    ready · error TEXT · exit CODE (128 + N for signal N) · then end of file: no process is left

In a namespace the command is PID 1, so its end is the end of all. As a plain process the supervisor is the tree's
subreaper: whoever double-forks or calls setsid becomes its child, and it leaves only when it has no children.
"""

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spotproof.local import _kernel, _stage
else:
    import _kernel
    import _stage

CONTROL_FD = 0


def run(report_fd: int) -> int:
    """Run one host to its end; return the exit code of this process."""
    line, commands = read_line(CONTROL_FD)
    if not line:
        return 1  # the server is gone already
    config = json.loads(line)
    is_namespaced = config["mode"] == "namespace"
    try:
        _make_cgroups(config.get("cgroups", ()))
        if is_namespaced:
            _stage.enter_namespaces(config.get("network"))
        elif sys.platform == "linux":
            _kernel.prctl(_kernel.PR_SET_CHILD_SUBREAPER, 1)
    except OSError as error:
        report(report_fd, f"error {error.strerror}")
        _remove(config.get("remove_at_end", ()))
        return 1
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    is_ending: list[bool] = [True] * (b"K" in commands)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: is_ending.append(True))
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        _become_command(config, report_fd, go_read)
    os.close(go_read)
    _supervise(child, go_write, wake_read, report_fd, is_ending, is_namespaced)
    _remove(config.get("remove_at_end", ()))
    return 0


def _supervise(
    child: int, go_write: int, wake_read: int, report_fd: int, is_ending: list[bool], is_namespaced: bool
) -> None:
    """Serve commands until no child is left."""
    poll = select.poll()
    poll.register(CONTROL_FD, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    has_child = True
    while True:
        for fd, _ in poll.poll(20 if is_ending else None):
            data = os.read(fd, 4096)
            if fd == wake_read:
                continue
            if not data or b"K" in data:
                is_ending.append(True)
                if not data:
                    poll.unregister(CONTROL_FD)
            elif b"T" in data and has_child:
                os.kill(child, signal.SIGTERM)
            if b"G" in data and has_child:
                os.write(go_write, b"G")
        if is_ending:
            _kill_all(child if has_child else None, is_namespaced)
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == child:
                    has_child = False
                    code = os.waitstatus_to_exitcode(status)
                    report(report_fd, f"exit {code if code >= 0 else 128 - code}")
                    is_ending.append(True)  # a container ends with its PID 1
                    _kill_all(None, is_namespaced)
        except ChildProcessError:
            return


def _kill_all(child: int | None, is_namespaced: bool) -> None:
    if child is not None:
        _kill(child)
    if is_namespaced:
        return  # the kernel kills a PID namespace with its PID 1
    if sys.platform == "linux":
        for pid in _descendants(os.getpid()):
            _kill(pid)
    elif child is not None:
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The second field is the command in parentheses and may hold anything, so count from its end.
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        for pid in children.get(todo.pop(), []):
            found.append(pid)
            todo.append(pid)
    return found


def _become_command(config: dict[str, Any], report_fd: int, go_read: int) -> NoReturn:
    """In the child: set the stage, wait for the word, turn into the job's command."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores SIGPIPE, and ignoring outlives exec
        if sys.platform == "linux":
            _kernel.prctl(_kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for cgroup in config.get("cgroups", ()):
            with open(os.path.join(cgroup["folder"], "cgroup.procs"), "w") as file:
                file.write("0")  # this process
        if config["mode"] == "namespace":
            _stage.set_stage(config)
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, 0)
    except OSError as error:
        report(report_fd, f"error {error.strerror}")
        os._exit(1)
    report(report_fd, "ready")
    if os.read(go_read, 1) != b"G":
        os._exit(1)
    try:
        # The directory may be a file of the job's by now, or gone.
        os.chdir(config["cwd"])
        os.execvpe(config["command"][0], config["command"], config["environment"])
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument or in the environment
        # 127 and 126 are what a shell and a container engine say.
        reason = error.strerror if isinstance(error, OSError) else error
        os.write(2, f"spotproof: can't run {config['command'][0]!r}: {reason}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _make_cgroups(cgroups: Sequence[dict[str, Any]]) -> None:
    """Make the control groups that limit the host. The files of a limit are written in their order."""
    for cgroup in cgroups:
        os.makedirs(cgroup["folder"], exist_ok=True)
        for name, text in cgroup["files"]:
            path = os.path.join(cgroup["folder"], name)
            if os.path.exists(path):  # what counts swap is not in every kernel
                with open(path, "w") as file:
                    file.write(text)


def _remove(paths: Sequence[str]) -> None:
    """Remove files, and control groups, which are empty by now."""
    for path in paths:
        for tries_left in reversed(range(100)):
            try:
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or not tries_left:
                    break
                time.sleep(0.01)  # the kernel has not taken leave of the last process yet


def report(fd: int, text: str) -> None:
    try:
        os.write(fd, text.replace("\n", " ").encode() + b"\n")
    except BrokenPipeError:
        pass  # the server is gone; the end of stdin will say so


def read_line(fd: int) -> tuple[bytes, bytes]:
    """Return the first line, empty if there is none, and the commands that came with it: a kill may follow at once."""
    read = b""
    while b"\n" not in read:
        data = os.read(fd, 65536)
        if not data:
            return b"", b""
        read += data
    line, _, rest = read.partition(b"\n")
    return line, rest
