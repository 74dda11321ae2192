"""Hosts that may use only so much memory and so many CPUs, held by the kernel."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from local_rig import open_rig, processes_with

from spotproof.errors import EngineError
from spotproof.local.hosts import find_namespace_obstacle
from spotproof.local.limits import cgroup_name, find_places
from spotproof.local.registry import owner_id


def find_obstacle():
    with contextlib.suppress(EngineError):
        find_places(["memory", "cpu"])
        return None
    return "control groups can't be made here"


pytestmark = pytest.mark.skipif(find_obstacle() is not None, reason="control groups can't be made here")


def groups(rig, name):
    """Return the control groups of a job's first host."""
    own = cgroup_name(owner_id(rig.platform.state_dir), f"{name}/attempt-0/algo-1")
    return [str(path) for place in find_places(["memory", "cpu"]) for path in place.folder.glob(own)]


@pytest.fixture(params=["namespace", "plain"])
def open_platform(request, tmp_path, s3_server, monkeypatch):
    """Open a platform with limits."""
    if request.param == "namespace" and find_namespace_obstacle() is not None:
        pytest.skip("no namespaces here")
    return lambda **limits: open_rig(tmp_path, s3_server, monkeypatch, hosts=request.param, **limits)


def test_a_host_that_takes_too_much_memory_is_killed(open_platform):
    """The kernel ends it as it ends a container: exit code 137, an AlgorithmError; nothing of the group is left."""
    script = """
        kept = []
        for mebibytes in range(0, 2000, 10):
            print("HAVE", mebibytes, flush=True)
            kept.append(bytearray(os.urandom(1) * (10 << 20)))
    """
    with open_platform(host_memory="150MiB") as rig:
        description = rig.run("greedy", script)
        assert description["FailureReason"] == "AlgorithmError: , exit code: 137"
        last = int(rig.lines("greedy")[-1].split()[1])
        assert 50 <= last <= 150, "killed at its limit"
        assert rig.run("modest", "print(len(bytearray(20 << 20)))")["TrainingJobStatus"] == "Completed"
        assert groups(rig, "greedy") == groups(rig, "modest") == []


def test_a_host_has_its_share_of_the_cpus(open_platform):
    """With 0.2 CPUs, a process that spins for some time gets a fifth of it."""
    script = """
        begun, used = time.monotonic(), time.process_time()
        while time.process_time() - used < 0.5:
            pass
        print("SHARE", (time.process_time() - used) / (time.monotonic() - begun))
    """
    with open_platform(host_cpus=0.2) as rig:
        assert rig.run("spinning", script)["TrainingJobStatus"] == "Completed"
        assert float(rig.lines("spinning")[-1].split()[1]) < 0.4


def test_a_killed_supervisor_leaves_no_group(open_platform, tmp_path):
    """The groups of a host whose supervisor was killed are removed by the server."""
    with open_platform(host_memory="300MiB", host_cpus=1) as rig:
        name = rig.create("orphan", 'print("READY", flush=True); time.sleep(600)')
        rig.wait_line(name, "READY")
        assert len(groups(rig, name)) >= 1
        for record in (tmp_path / "state/processes").glob("*.json"):
            os.kill(json.loads(Path(record).read_text())["pid"], 9)
        rig.wait(name)
        assert not processes_with(rig.mark(name, 0))
        assert groups(rig, name) == []
