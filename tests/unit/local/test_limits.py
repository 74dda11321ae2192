"""Limits of a host: amounts of memory, places for control groups of both versions, what is written into them."""

import pytest

from spotproof.errors import EngineError, SpecError
from spotproof.local.limits import CgroupPlace, HostLimits, find_places, make_cgroups, parse_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * 2**30), ("512MiB", 2**29), ("1.5 GB", 1_500_000_000), ("67108864", 2**26), ("64mib", 2**26)],
)
def test_memory_is_read_with_its_unit(text, size):
    """Binary and decimal units, and bytes."""
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "4", "4G", "-1GiB", "lots", "1 GiB extra", "nanGiB"])
def test_other_amounts_of_memory_are_refused(text):
    """What has no known unit, or would be too little for any process, is refused with an example."""
    with pytest.raises(SpecError, match=r"GiB|MiB"):
        HostLimits(memory_bytes=parse_memory(text))


@pytest.mark.parametrize("cpus", [0, -1, float("nan"), float("inf")])
def test_other_numbers_of_cpus_are_refused(cpus):
    """A share of a CPU is fine, none is not."""
    with pytest.raises(SpecError, match="CPUs"):
        HostLimits(cpus=cpus)


def test_what_is_written_into_the_groups(tmp_path):
    """Memory without swap and a quota of CPU time, in the words of both versions."""
    limits = HostLimits(memory_bytes=2**30, cpus=1.5)
    (second,) = make_cgroups(limits, [CgroupPlace(tmp_path, 2, ["memory", "cpu"])], "host")
    assert second.folder == str(tmp_path / "host")
    assert list(second.files) == [
        ("memory.max", "1073741824"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("cpu.max", "150000 100000"),
    ]
    memory, cpu = make_cgroups(
        limits, [CgroupPlace(tmp_path / "m", 1, ["memory"]), CgroupPlace(tmp_path / "c", 1, ["cpu"])], "host"
    )
    assert list(memory.files) == [
        ("memory.limit_in_bytes", "1073741824"),
        ("memory.memsw.limit_in_bytes", "1073741824"),
    ]
    assert list(cpu.files) == [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")]
    assert make_cgroups(HostLimits(), [], "host") == []


def mount(root, point, kind, options):
    return f"30 20 0:26 {root} {point} rw,nosuid shared:4 - {kind} {kind} rw,{options}"


class Kernel:
    """A directory in which a new group has the files that the kernel would put there."""

    def __init__(self, monkeypatch, files):
        from pathlib import Path

        make, remove = Path.mkdir, Path.rmdir

        def mkdir(path, *arguments, **options):
            make(path, *arguments, **options)
            for name in files.get(path.parent, ()):
                (path / name).touch()

        def rmdir(path):
            for file in path.iterdir():
                file.unlink()
            remove(path)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)


def test_a_unified_hierarchy_gives_one_place_for_all(tmp_path, monkeypatch):
    """Version 2: our own group has processes in it and hands nothing down, so the group is made beside it."""
    own = tmp_path / "user.slice/app.slice/shell.scope"
    own.mkdir(parents=True)
    (own.parent / "cgroup.procs").touch()
    Kernel(monkeypatch, {own: [], own.parent: ["memory.max", "cpu.max"]})
    mounts = mount("/", tmp_path, "cgroup2", "nsdelegate")

    places = find_places(["memory", "cpu"], own_groups="0::/user.slice/app.slice/shell.scope\n", mounts=mounts)

    assert places == [CgroupPlace(own.parent, 2, ["memory", "cpu"])]
    assert sorted(path.name for path in own.parent.iterdir()) == ["cgroup.procs", "shell.scope"], "the probe is left"


def test_one_group_has_all_controllers_of_a_unified_hierarchy(tmp_path, monkeypatch):
    """Version 2: a process is in one group only, so memory alone, though it is nearer, is no place for both."""
    near = tmp_path / "user.slice/user-0.slice"
    near.mkdir(parents=True)
    for folder in (tmp_path, near):
        (folder / "cgroup.procs").touch()
    Kernel(monkeypatch, {near: ["memory.max"], tmp_path: ["memory.max", "cpu.max"]})
    mounts = mount("/", tmp_path, "cgroup2", "")

    for controllers, folder in ((["memory", "cpu"], tmp_path), (["memory"], near)):
        found = find_places(controllers, own_groups="0::/user.slice/user-0.slice\n", mounts=mounts)
        assert found == [CgroupPlace(folder, 2, controllers)]


def test_old_hierarchies_give_a_place_for_each(tmp_path, monkeypatch):
    """Version 1, also beside a version 2 that has no controllers: one group below ours in each."""
    memory, cpu, unified = tmp_path / "memory", tmp_path / "cpu,cpuacct", tmp_path / "unified"
    for folder in (memory / "box", cpu, unified):
        folder.mkdir(parents=True)
    Kernel(monkeypatch, {memory / "box": ["memory.limit_in_bytes"], cpu: ["cpu.cfs_quota_us"]})
    mounts = "\n".join(
        [
            mount("/", memory, "cgroup", "memory"),
            mount("/", cpu, "cgroup", "cpu,cpuacct"),
            mount("/", unified, "cgroup2", ""),
        ]
    )
    own = "5:memory:/box\n3:cpu,cpuacct:/\n0::/\n"

    assert find_places(["memory", "cpu"], own_groups=own, mounts=mounts) == [
        CgroupPlace(memory / "box", 1, ["memory"]),
        CgroupPlace(cpu, 1, ["cpu"]),
    ]
    assert find_places([], own_groups="", mounts="") == []


def test_no_place_is_told_with_a_way_out(tmp_path):
    """Without the right to make a group, or without the controller, the error says what to do."""
    with pytest.raises(EngineError, match=r"no control group for memory.*systemd-run"):
        find_places(["memory"], own_groups="0::/\n", mounts=mount("/", tmp_path / "missing", "cgroup2", ""))
