"""The process that supervisors are forked from: what it hands on, what it keeps to itself, and its own death."""

import os
import signal
import threading

import pytest
from local_rig import PATIENCE_SECONDS, open_rig, wait_until

from spotproof.local.processes import Stage, Supervised
from spotproof.local.registry import Registry


@pytest.fixture
def registry(tmp_path):
    registry = Registry(tmp_path / "processes", "tests")
    yield registry
    registry.close()


@pytest.fixture
def open_tree(registry, tmp_path):
    """Open a process tree that waits for its word, and end it with the test."""
    opened = []

    def open_it(command):
        output = []
        tree = Supervised("tree", command, registry, on_output=output.append, on_exit=lambda code: None)
        opened.append(tree)
        tree.open(Stage(cwd=tmp_path, environment={"PATH": os.defpath}))
        return tree, output

    yield open_it
    for tree in opened:
        tree.kill()
        assert tree.is_gone.wait(PATIENCE_SECONDS)


def test_one_tree_ends_while_a_later_one_lives(open_tree):
    """A supervisor holds nothing of those before it: the end of the first is seen at once, with all of its output."""
    first, output = open_tree(["sh", "-c", "echo said; exit 7"])
    second, _ = open_tree(["sleep", "600"])
    second.start()
    first.start()

    assert first.is_gone.wait(PATIENCE_SECONDS)
    assert (first.exit_code, b"".join(output)) == (7, b"said\n")
    assert not second.is_gone.is_set()


def test_a_supervisor_holds_four_descriptors_and_what_it_wakes_by(open_tree):
    """Control, output twice, report; a pipe to wake by, a pipe to the command: no socket, nothing of the server."""
    open_tree(["sleep", "600"])
    tree, _ = open_tree(["sleep", "600"])

    # The command reports from its own process: the supervisor may not have closed the command's end of the pipe yet.
    wait_until(lambda: len(os.listdir(f"/proc/{tree.pid}/fd")) <= 7)
    held = [os.readlink(f"/proc/{tree.pid}/fd/{name}") for name in os.listdir(f"/proc/{tree.pid}/fd")]

    assert all(place.startswith("pipe:") for place in held), held
    assert len(held) == 7


def test_it_is_killed_and_nobody_minds(tmp_path, s3_server, monkeypatch):
    """Jobs that run go on without it, and it is there again for the next one."""
    script = """
        print("RUNNING", flush=True)
        while not pathlib.Path(os.environ["GATE"]).exists():
            time.sleep(0.02)
    """
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain") as rig:
        gate = {"GATE": str(tmp_path / "gate")}
        rig.create("before", script, Environment=gate)
        rig.wait_line("before", "RUNNING")
        killed = rig.platform._registry.forks._process
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        rig.create("after", script, Environment=gate)
        rig.wait_line("after", "RUNNING")
        (tmp_path / "gate").touch()
        ends = [rig.wait(name)["TrainingJobStatus"] for name in ("before", "after")]

    assert ends == ["Completed", "Completed"]


def test_it_ends_with_its_owner(open_tree, registry):
    """Closed, it is gone when the call returns; what it has forked lives on, and is told of its own end as ever."""
    tree, _ = open_tree(["sleep", "600"])
    process = registry.forks._process
    registry.close()

    assert process.returncode == 0
    assert not tree.is_gone.is_set()


def test_trees_from_many_threads(open_tree):
    """Sixteen at once: each has its own supervisor, and answers for itself."""
    trees = []

    def run(number):
        tree, _ = open_tree(["sh", "-c", f"exit {number}"])
        tree.start()
        assert tree.is_gone.wait(PATIENCE_SECONDS)
        trees.append((number, tree))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(number for number, _ in trees) == list(range(16))
    assert all(tree.exit_code == number for number, tree in trees)
    assert len({tree.pid for _, tree in trees}) == 16


def test_what_is_left_is_removed_once_its_holders_are_gone(registry, tmp_path, monkeypatch):
    """A busy machine buries the killed late: a control group that still holds one of them can't be removed before."""
    left = tmp_path / "left"
    left.touch()
    registry.add(2**22, "tree", [str(left)])
    dying = ["tree", "tree", "tree"]

    def end_marked(what=""):
        assert left.exists(), "removed while somebody held it"
        return [dying.pop()] if dying else []

    monkeypatch.setattr(registry, "end_marked", end_marked)
    registry.end_leftovers()

    assert not dying
    assert not left.exists()
