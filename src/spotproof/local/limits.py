"""Memory and CPUs of a host, held by control groups where the kernel lets us make them.

Both versions are spoken: in a unified hierarchy (v2) a group below ours or beside it, if the controllers are handed
down to there; else one in each controller's own hierarchy (v1). Nothing is changed above the groups that we make.

Source: kernel.org, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,cgroups}.rst; CFS bandwidth control.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from spotproof.errors import EngineError, SpecError

__all__ = ["Cgroup", "CgroupPlace", "HostLimits", "cgroup_name", "find_places", "make_cgroups", "parse_memory"]

_UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LEAST_MEMORY_BYTES: Final = 16 * 2**20
"""A Python process does not start in less."""
_PERIOD_MICROSECONDS: Final = 100_000
_LEAST_CPUS: Final = 0.01
"""The kernel's least quota is a millisecond in a period."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostLimits:
    """What one host may use; None for as much as the machine has."""

    memory_bytes: int | None = None
    cpus: float | None = None

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < _LEAST_MEMORY_BYTES:
            raise SpecError(
                f"A host with {self.memory_bytes} bytes of memory can't run anything.", do="Give 16MiB or more."
            )
        if self.cpus is not None and not _LEAST_CPUS <= self.cpus <= 4096:
            raise SpecError(
                f"A host can't have {self.cpus:g} CPUs.", do=f"Give {_LEAST_CPUS:g} or more, for example 1."
            )

    @property
    def controllers(self) -> list[str]:
        """The kernel's names for what is limited."""
        given = {"memory": self.memory_bytes, "cpu": self.cpus}
        return [name for name, value in given.items() if value is not None]


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """A directory in which groups with these controllers can be made."""

    folder: Path
    version: int
    controllers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A group that is to be made."""

    folder: str
    files: Sequence[tuple[str, str]]
    """Name and content, to be written in this order; a name that is not there is left out."""


def parse_memory(text: str) -> int:
    """Return the bytes that ``4GiB``, ``512MB`` or a bare number stand for.

    Raises:
        SpecError: *text* has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise SpecError(f"{text!r} is no amount of memory.", do="Write a number and a unit: 4GiB, 512MiB, 2GB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def cgroup_name(owner: str, what: str) -> str:
    """Return the name of the groups of one host of one state directory."""
    return f"spotproof-{hashlib.sha256(f'{owner}/{what}'.encode()).hexdigest()[:24]}"


def make_cgroups(limits: HostLimits, places: Sequence[CgroupPlace], name: str) -> list[Cgroup]:
    """Return the groups that hold one host to *limits*. Pure."""
    groups = []
    for place in places:
        files: list[tuple[str, str]] = []
        for controller in place.controllers:
            if controller == "memory" and limits.memory_bytes is not None:
                files += _memory_files(limits.memory_bytes, place.version)
            if controller == "cpu" and limits.cpus is not None:
                files += _cpu_files(limits.cpus, place.version)
        groups.append(Cgroup(str(place.folder / name), files))
    return groups


def _memory_files(limit_bytes: int, version: int) -> list[tuple[str, str]]:
    """An instance has no swap; a host that runs out loses all its processes, as a container does with its PID 1."""
    if version == 2:
        return [("memory.max", str(limit_bytes)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
    return [("memory.limit_in_bytes", str(limit_bytes)), ("memory.memsw.limit_in_bytes", str(limit_bytes))]


def _cpu_files(cpus: float, version: int) -> list[tuple[str, str]]:
    quota = round(cpus * _PERIOD_MICROSECONDS)
    if version == 2:
        return [("cpu.max", f"{quota} {_PERIOD_MICROSECONDS}")]
    return [("cpu.cfs_period_us", str(_PERIOD_MICROSECONDS)), ("cpu.cfs_quota_us", str(quota))]


def find_places(
    controllers: Sequence[str], *, own_groups: str | None = None, mounts: str | None = None
) -> list[CgroupPlace]:
    """Return where groups with all *controllers* can be made; each place has been tried.

    Args:
        controllers: Of ``memory`` and ``cpu``.
        own_groups: The text of /proc/self/cgroup.
        mounts: The text of /proc/self/mountinfo.

    Raises:
        EngineError: There is none for one of them.
    """
    if not controllers:
        return []
    try:
        own_groups = Path("/proc/self/cgroup").read_text() if own_groups is None else own_groups
        mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    except OSError as error:
        raise EngineError("Hosts can't be limited:", why="this system has no control groups.") from error
    mounted = _parse_mounts(mounts)
    own = [line.split(":", 2) for line in own_groups.splitlines()]
    old = [name for name in controllers if any(name in names.split(",") for _, names, _ in own)]
    # A process is in one group of the unified hierarchy: that one has to have all that are left.
    wanted = [([name], 1) for name in old] + [([name for name in controllers if name not in old], 2)]
    found: dict[tuple[Path, int], list[str]] = {}
    for names, version in wanted:
        if not names:
            continue
        folder = _find_folder(names, version, own, mounted)
        if folder is None:
            raise EngineError(
                f"Hosts can't be limited: no control group for {' and '.join(names)} can be made,",
                why="because this user may not, or the controller is not handed down to it.",
                do="Run as root, or below `systemd-run --user --scope -p CPUWeight=100`; or leave the limit out.",
            )
        found.setdefault((folder, version), []).extend(names)
    return [CgroupPlace(folder, version, names) for (folder, version), names in found.items()]


@dataclass(frozen=True, slots=True)
class _Mount:
    root: PurePosixPath
    point: Path
    kind: str
    options: Sequence[str]


def _parse_mounts(text: str) -> list[_Mount]:
    """Source: proc(5), /proc/pid/mountinfo."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split()
        if kind in ("cgroup", "cgroup2"):
            found.append(_Mount(PurePosixPath(fields[3]), Path(fields[4]), kind, rest[-1].split(",")))
    return found


def _find_folder(
    controllers: Sequence[str], version: int, own: Sequence[Sequence[str]], mounts: Sequence[_Mount]
) -> Path | None:
    """Return our own group, or the nearest above it, in which one with all *controllers* can be made."""
    for number, names, path in own:
        is_it = controllers[0] in names.split(",") if version == 1 else (number, names) == ("0", "")
        for mount in mounts if is_it else ():
            if mount.kind != ("cgroup" if version == 1 else "cgroup2"):
                continue
            if version == 1 and controllers[0] not in mount.options:
                continue
            try:
                inside = PurePosixPath(path).relative_to(mount.root)
            except ValueError:
                continue
            for folder in [mount.point / inside, *(mount.point / parent for parent in inside.parents)]:
                if all(_can_limit(folder, controller, version) for controller in controllers):
                    return folder
    return None


def _can_limit(parent: Path, controller: str, version: int) -> bool:
    """Try: make a group, look for the limit's file in it, remove it."""
    name = {("memory", 1): "memory.limit_in_bytes", ("memory", 2): "memory.max"}.get(
        (controller, version), "cpu.cfs_quota_us" if version == 1 else "cpu.max"
    )
    probe = parent / f"spotproof-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        # To move a process, v2 also wants the right to write to the group that is above both.
        return os.access(probe / name, os.W_OK) and (version == 1 or os.access(parent / "cgroup.procs", os.W_OK))
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()
