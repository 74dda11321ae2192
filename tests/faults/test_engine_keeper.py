"""The keeper of a container, with an engine of a few lines: what it does where no real engine is at hand to fail so."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from local_rig import PATIENCE_SECONDS, wait_until

from spotproof.errors import EngineError
from spotproof.local.processes import Stage, Supervised
from spotproof.local.registry import Registry

ENGINE = """
import json, os, pathlib, signal, sys, time
folder, verb = pathlib.Path(sys.argv[1]), sys.argv[2]
with (folder / "told").open("a") as file:
    file.write(verb + "\\n")
def times():
    return (folder / "told").read_text().split().count(verb)
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)
"""
"""What each script below begins with; it is called as ``engine FOLDER VERB``."""


REGISTRIES = []


@pytest.fixture(autouse=True)
def _ended():
    """What keepers are forked from is ended after each test."""
    yield
    while REGISTRIES:
        REGISTRIES.pop().close()


class Keeper:
    """A keeper over an engine that *script* makes."""

    def __init__(self, folder, script):
        self.folder = folder
        (folder / "engine.py").write_text(ENGINE + script)
        self.output, self.codes = b"", []
        self.registry = Registry(folder / "processes", "owner")
        REGISTRIES.append(self.registry)
        self.tree = Supervised("a container", [], self.registry, on_output=self._take, on_exit=self.codes.append)

    def _take(self, data):
        self.output += data

    def open(self):
        verbs = ("create", "start", "terminate", "wait", "look", "remove")
        engine = [sys.executable, "-I", "-S", str(self.folder / "engine.py"), str(self.folder)]
        commands = {verb: [*engine, verb] for verb in verbs}
        settings = {**commands, "client_environment": {"OF_THE_CLIENT": "1"}}
        environment = {"OF_THE_JOB": "two\nlines"}
        self.tree.open(Stage(mode="engine", cwd=Path("/"), environment=environment, settings=settings))

    def told(self):
        path = self.folder / "told"
        return path.read_text().split() if path.exists() else []

    def wait_told(self, verb):
        wait_until(lambda: verb in self.told())

    def let(self, name):
        (self.folder / name).touch()

    def wait_gone(self):
        assert self.tree.is_gone.wait(PATIENCE_SECONDS)


def test_a_container_from_its_making_to_its_end(tmp_path):
    """Made, started, looked at, removed; the exit code is the engine's, and not its client's."""
    script = """
if verb == "create":
    (folder / "seen").write_text(json.dumps([os.environ.get("OF_THE_JOB"), os.environ.get("OF_THE_CLIENT")]))
if verb == "start":
    assert "OF_THE_JOB" not in os.environ
    sys.exit(1)
if verb == "look":
    print("exited 42")
    print("a warning", file=sys.stderr)
"""
    keeper = Keeper(tmp_path, script)
    keeper.open()
    assert keeper.told() == ["create"]
    keeper.tree.start()
    keeper.wait_gone()
    assert keeper.codes == [42]
    assert keeper.told() == ["create", "start", "look", "remove"]
    assert json.loads((tmp_path / "seen").read_text()) == ["two\nlines", "1"]
    assert list((tmp_path / "processes").iterdir()) == []


def test_lines_of_the_two_streams_stay_whole(tmp_path):
    """An engine hands over stdout and stderr in pieces; in the log each line is one. The last needs no end."""
    script = """
if verb == "start":
    for _ in range(50):
        for fd, piece in ((1, b"[step"), (2, b"warn"), (1, b"=7]\\n"), (2, b"ing\\n")):
            os.write(fd, piece)
            time.sleep(0.002)
    os.write(1, b"x" * 300_000 + b"\\nlast")
if verb == "look":
    print("exited 0")
"""
    keeper = Keeper(tmp_path, script)
    keeper.open()
    keeper.tree.start()
    keeper.wait_gone()
    lines = keeper.output.decode().splitlines()
    assert sorted(lines[:100]) == ["[step=7]"] * 50 + ["warning"] * 50
    assert lines[100:] == ["x" * 300_000, "last"]


def test_what_can_not_be_made_is_an_error(tmp_path):
    """The engine's words are the reason, and it is asked to remove what it may have begun."""
    keeper = Keeper(tmp_path, 'if verb == "create": sys.exit("no space\\nleft")')
    with pytest.raises(EngineError, match="could not be set up: no space left"):
        keeper.open()
    assert keeper.told()[0] == "create"
    assert set(keeper.told()[1:]) == {"remove"}
    assert keeper.codes == [128 + signal.SIGKILL]


def test_a_stop_that_comes_early_is_not_lost(tmp_path):
    """Until the container runs the engine refuses a signal; it is sent again."""
    script = """
if verb == "start":
    wait_for("signalled")
if verb == "terminate":
    if times() < 3:
        sys.exit("not running")
    (folder / "signalled").touch()
if verb == "look":
    print("exited 143")
"""
    keeper = Keeper(tmp_path, script)
    keeper.open()
    keeper.tree.start()
    keeper.tree.terminate()
    keeper.wait_gone()
    assert keeper.codes == [143]
    assert keeper.told().count("terminate") == 3


def test_a_client_that_ends_is_not_the_containers_end(tmp_path):
    """While the engine says that it runs, it is waited for."""
    script = """
if verb == "look":
    print("running 0" if times() == 1 else "exited 5")
if verb == "wait":
    wait_for("over")
"""
    keeper = Keeper(tmp_path, script)
    keeper.open()
    keeper.tree.start()
    keeper.wait_told("wait")
    assert keeper.codes == []
    keeper.let("over")
    keeper.wait_gone()
    assert keeper.codes == [5]


@pytest.mark.parametrize(("answer", "code"), [("created 0", 127), ("created 126", 126), ("", 137), ("nonsense", 137)])
def test_containers_that_never_ran_or_are_gone(tmp_path, answer, code):
    """A command that could not be started is 127, as a shell has it; a container that somebody removed was killed."""
    keeper = Keeper(tmp_path, f'if verb == "look": print("{answer}")')
    keeper.open()
    keeper.tree.start()
    keeper.wait_gone()
    assert keeper.codes == [code]


def test_a_kill_removes_it_as_often_as_it_takes(tmp_path):
    """The attached client is left alone until the container is gone: its last words are still delivered."""
    script = """
if verb == "start":
    wait_for("removed")
    print("last words")
if verb == "remove":
    if times() < 3:
        sys.exit("network has active endpoints")
    (folder / "removed").touch()
"""
    keeper = Keeper(tmp_path, script)
    keeper.open()
    keeper.tree.start()
    keeper.wait_told("start")
    keeper.tree.kill()
    keeper.wait_gone()
    assert keeper.codes == [137]
    assert keeper.told().count("remove") == 3
    assert keeper.output == b"last words\n"


def test_a_kill_while_it_is_made_waits_for_the_making(tmp_path):
    """What the engine is making can't be removed yet, and would stay if it were made afterwards."""
    script = """
if verb == "create":
    wait_for("go on")
    (folder / "made").touch()
if verb == "remove":
    assert (folder / "made").exists()
"""
    keeper = Keeper(tmp_path, script)
    opened = threading.Thread(target=keeper.open)
    opened.start()
    keeper.wait_told("create")
    keeper.tree.kill()
    keeper.let("go on")
    opened.join()
    keeper.wait_gone()
    assert keeper.told() == ["create", "remove"]


def test_a_keeper_that_is_killed_has_its_container_removed(tmp_path):
    """By the server, which sees it go."""
    keeper = Keeper(tmp_path, 'if verb == "start": wait_for("never")')
    keeper.open()
    keeper.tree.start()
    keeper.wait_told("start")
    os.kill(keeper.tree.pid, signal.SIGKILL)
    wait_until(lambda: "remove" in keeper.told())
    keeper.let("never")
    keeper.wait_gone()
    assert keeper.codes == [137]


def test_the_servers_death_removes_the_container(tmp_path):
    """What it looks like from the keeper: nobody speaks to it any more."""
    script = """
if verb == "start":
    wait_for("removed")
if verb == "remove":
    (folder / "removed").touch()
"""
    keeper = Keeper(tmp_path, script)
    keeper.open()
    keeper.tree.start()
    keeper.wait_told("start")
    nobody = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, keeper.tree._control)
    os.close(nobody)
    keeper.wait_gone()
    assert keeper.told() == ["create", "start", "remove"]
