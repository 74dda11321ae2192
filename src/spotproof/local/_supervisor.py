"""The parent of one host's process tree. A script of its own: ``python -I -S _supervisor.py REPORT_FD``, stdlib only.

It sets the stage (namespaces, mounts, hostname), starts the job's command, passes signals on, and makes sure that the
whole tree is gone when it should be. It reads one line of JSON and then single-byte commands from stdin, and writes
lines to REPORT_FD. When stdin ends, which is what the server's death looks like from here, it kills the tree and
leaves: the server needs no chance to clean up.

    commands   G go: run the command · T SIGTERM to the command · K SIGKILL to everything
    reports    ready · error TEXT · exit CODE (128 + N for signal N) · then end of file: no process is left

In a namespace the command is PID 1, so its end is the end of all. As a plain process the supervisor is the tree's
subreaper: whoever double-forks or calls setsid becomes its child, and it leaves only when it has no children.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

CONTROL_FD = 0
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run one host to its end."""
    report_fd = int(sys.argv[1])
    os.set_inheritable(report_fd, False)
    config = json.loads(_read_line(CONTROL_FD))
    is_namespaced = config["mode"] == "namespace"
    try:
        if is_namespaced:
            _enter_namespaces()
        elif sys.platform == "linux":
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
    except OSError as error:
        _report(report_fd, f"error {error.strerror}")
        return 1
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    is_ending: list[bool] = []
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
    for path in config.get("remove_at_end", ()):
        try:
            os.unlink(path)
        except OSError:
            pass
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
                    _report(report_fd, f"exit {code if code >= 0 else 128 - code}")
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
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        if config["mode"] == "namespace":
            _set_stage(config)
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, 0)
    except OSError as error:
        _report(report_fd, f"error {error.strerror}")
        os._exit(1)
    _report(report_fd, "ready")
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


def _enter_namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
    if uid == 0:
        try:
            _unshare(flags)
            return
        except PermissionError:  # root without CAP_SYS_ADMIN, as in a container
            pass
    _unshare(flags | CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _set_stage(config: dict[str, Any]) -> None:
    """Give the host its own /opt/ml, /tmp, /dev/shm, /proc, /etc/hosts and name; all vanishes with the namespace."""
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount_ml(config["ml_dir"], config["scratch_dir"])
    if os.path.isdir("/dev/shm"):
        _mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    if os.path.isfile("/etc/hosts"):
        _bind(config["hosts_file"], "/etc/hosts")
    _mount_tmp(config["tmp_dir"], config["keep_paths"])  # last: what was mounted above may live below /tmp
    socket.sethostname(config["hostname"])


def _mount_ml(ml_dir: str, scratch_dir: str) -> None:
    """Put *ml_dir* at /opt/ml without making that directory on the machine and without hiding its neighbours."""
    if os.path.isdir("/opt/ml"):
        _bind(ml_dir, "/opt/ml")
        return
    _mount("tmpfs", scratch_dir, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for entry in os.scandir("/opt"):
        place = os.path.join(scratch_dir, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        elif entry.is_dir():
            os.mkdir(place)
            _bind(entry.path, place)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
            _bind(entry.path, place)
    place = os.path.join(scratch_dir, "ml")
    os.mkdir(place)
    _bind(ml_dir, place)
    _bind(scratch_dir, "/opt")


def _mount_tmp(tmp_dir: str, keep_paths: list[str]) -> None:
    """Put *tmp_dir* at /tmp, with those *keep_paths* (Python's own) that live in the machine's /tmp still in place."""
    for path in keep_paths:
        place = os.path.join(tmp_dir, os.path.relpath(path, "/tmp"))
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        _bind(path, place)
        # A job that empties its /tmp must not empty the virtual environment. Flags the mount has are locked: keep them.
        flags = os.statvfs(place).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("none", place, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    _bind(tmp_dir, "/tmp")


def _bind(source: str, target: str) -> None:
    # Recursive, because a user namespace may not take a tree apart and look beneath its mounts.
    _mount(source, target, None, MS_BIND | MS_REC)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    def encoded(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    if _libc.mount(encoded(source), encoded(target), encoded(kind), ctypes.c_ulong(flags), encoded(data)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def _unshare(flags: int) -> None:
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def _report(fd: int, text: str) -> None:
    try:
        os.write(fd, text.replace("\n", " ").encode() + b"\n")
    except BrokenPipeError:
        pass  # the server is gone; the end of stdin will say so


def _read_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(fd, 65536)
        if not data:
            raise SystemExit(1)
        line += data
    return line


if __name__ == "__main__":
    sys.exit(main())
