"""The kernel's calls that Python has no words for, as the scripts beside the hosts need them. Standard library only."""

import ctypes
import os

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        raise _error("unshare")


def join_namespace(fd: int, kind: int) -> None:
    """Enter the namespace that *fd*, of a file below /proc/PID/ns, is open on."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)) != 0:
        raise _error("setns")


def unshare_as_root(flags: int) -> bool:
    """Unshare *flags*; return whether that took a user namespace, in which we are root."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        try:
            unshare(flags)
            return False
        except PermissionError:  # root without CAP_SYS_ADMIN, as in a container
            pass
    unshare(flags | CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def bind(source: str, target: str) -> None:
    """Let *target* show what *source* does."""
    # Recursive, because a user namespace may not take a tree apart and look beneath its mounts.
    mount(source, target, None, MS_BIND | MS_REC)


def bind_read_only(source: str, target: str) -> None:
    bind(source, target)
    # Flags the mount has are locked: keep them.
    flags = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    def encoded(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    if _libc.mount(encoded(source), encoded(target), encoded(kind), ctypes.c_ulong(flags), encoded(data)) != 0:
        raise _error(f"mount {target}")


def prctl(option: int, value: int) -> None:
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise _error("prctl")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
