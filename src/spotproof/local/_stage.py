"""What surrounds a host in namespaces: processes, mounts, name, network. Standard library only."""

import os
import socket
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spotproof.local import _kernel
else:
    import _kernel


def enter_namespaces(network: dict[str, Any] | None) -> None:
    """Leave the machine's namespaces; for the *network*, if there is one, join the one that was made for this host."""
    kinds = _kernel.CLONE_NEWNS | _kernel.CLONE_NEWUTS | _kernel.CLONE_NEWIPC | _kernel.CLONE_NEWPID
    if network is None:
        _kernel.unshare_as_root(kinds)
        return
    holder = f"/proc/{network['pid']}"
    inside = os.open(f"{holder}/fd/{network['fd']}", os.O_RDONLY)
    if network["has_user_namespace"]:
        users = os.open(f"{holder}/ns/user", os.O_RDONLY)
        _kernel.join_namespace(users, _kernel.CLONE_NEWUSER)
        os.close(users)
    _kernel.join_namespace(inside, _kernel.CLONE_NEWNET)
    os.close(inside)
    _kernel.unshare(kinds)


def set_stage(config: dict[str, Any]) -> None:
    """Give the host its own /opt/ml, /tmp, /dev/shm, /proc, /etc/hosts and name; all vanishes with the namespace."""
    mount = _kernel.mount
    mount("none", "/", None, _kernel.MS_REC | _kernel.MS_PRIVATE)
    mount("proc", "/proc", "proc", _kernel.MS_NOSUID | _kernel.MS_NODEV | _kernel.MS_NOEXEC)
    if config.get("network") is not None:
        _mount_sys(config["spare_dir"])
    for folder in config["read_only"]:
        _kernel.bind_read_only(folder, folder)
    _mount_ml(config["ml_dir"], config["scratch_dir"])
    if os.path.isdir("/dev/shm"):
        mount("tmpfs", "/dev/shm", "tmpfs", _kernel.MS_NOSUID | _kernel.MS_NODEV, "mode=1777")
    if os.path.isfile("/etc/hosts"):
        _kernel.bind(config["hosts_file"], "/etc/hosts")
    _mount_tmp(config["tmp_dir"], config["keep_paths"])  # last: what was mounted above may live below /tmp
    socket.sethostname(config["hostname"])


def _mount_sys(spare_dir: str) -> None:
    """Let /sys/class/net show the host's interfaces, not the machine's. Where the kernel refuses, it shows these."""
    try:
        _kernel.bind("/sys", spare_dir)
        flags = _kernel.MS_NOSUID | _kernel.MS_NODEV | _kernel.MS_NOEXEC | _kernel.MS_RDONLY
        _kernel.mount("sysfs", "/sys", "sysfs", flags)
        _kernel.bind(os.path.join(spare_dir, "fs/cgroup"), "/sys/fs/cgroup")
    except OSError:
        pass


def _mount_ml(ml_dir: str, scratch_dir: str) -> None:
    """Put *ml_dir* at /opt/ml without making that directory on the machine and without hiding its neighbours."""
    if os.path.isdir("/opt/ml"):
        _kernel.bind(ml_dir, "/opt/ml")
        return
    _kernel.mount("tmpfs", scratch_dir, "tmpfs", _kernel.MS_NOSUID | _kernel.MS_NODEV, "mode=755")
    for entry in os.scandir("/opt"):
        place = os.path.join(scratch_dir, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        elif entry.is_dir():
            os.mkdir(place)
            _kernel.bind(entry.path, place)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
            _kernel.bind(entry.path, place)
    place = os.path.join(scratch_dir, "ml")
    os.mkdir(place)
    _kernel.bind(ml_dir, place)
    _kernel.bind(scratch_dir, "/opt")


def _mount_tmp(tmp_dir: str, keep_paths: list[str]) -> None:
    """Put *tmp_dir* at /tmp, with those *keep_paths* (Python's own) that live in the machine's /tmp still in place."""
    for path in keep_paths:
        place = os.path.join(tmp_dir, os.path.relpath(path, "/tmp"))
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        _kernel.bind_read_only(path, place)  # a job that empties its /tmp must not empty the virtual environment
    _kernel.bind(tmp_dir, "/tmp")
