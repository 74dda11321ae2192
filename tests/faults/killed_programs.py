"""Runs programs, kills them, and compares what they printed and left with an undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path

from spotproof.checkpoint import first_difference, newest_verified
from spotproof.storage import LocalStorage

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"


class Programs:
    """Starts programs; see program_zygote.py."""

    def __init__(self, *imports):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "program_zygote.py"), *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program, folder, *args, kill=None, mutate=None, exit_code=None):
        """Run *program* with its checkpoints in *folder*; return the lines that it printed."""
        folder.mkdir(exist_ok=True)
        output = folder / "output.txt"
        request = {
            "program": str(program),
            "args": [str(folder / "checkpoints"), *args],
            "output": str(output),
            "kill": kill or {},
            "mutate": mutate,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())["exit"]
        expected = exit_code if exit_code is not None else 0 if kill is None else -9
        assert code == expected, output.read_text()
        return output.read_text().splitlines()

    def close(self):
        """End it."""
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def told(lines):
    """Return what a run told of each step and epoch, and of its end."""
    return {" ".join(line.split()[:2]): line for line in lines if line.startswith(("step ", "epoch ", "weights "))}


def start(lines):
    """Return the step that a run went on from; None if it was killed before it said so."""
    found = [line for line in lines if line.startswith("from step ")]
    return int(found[0].split()[-1]) if found else None


def run_killed(run, kills, **last):
    """Call *run* with each kill and then with *last*; return what was told last of everything.

    Args:
        run: Runs the program to a kill, or to its end.
        kills: Of each run, and the step that the run after it must go on from (or None, if that is left open).
    """
    lines, expected = {}, 0
    for kill, step in kills:
        output = run(kill=kill)
        assert None in (start(output), expected) or start(output) == expected
        lines, expected = {**lines, **told(output)}, step
    output = run(**last)
    assert start(output) is not None
    assert expected is None or start(output) == expected
    return {**lines, **told(output)}


def difference_at_end(one, other):
    """Return the first difference between the last checkpoints of two folders: of everything registered; or None."""
    storages = [LocalStorage(folder / "checkpoints") for folder in (one, other)]
    manifests = [newest_verified(storage) for storage in storages]
    assert None not in manifests
    assert manifests[0].step == manifests[1].step
    return first_difference(manifests[0], storages[0], manifests[1], storages[1])


def remembered(programs, program, tmp_path_factory, arguments):
    """Return a function that gives the output and the folder of an undisturbed run; each is made once.

    *arguments* tells the program's, from what the function is called with.
    """
    runs = {}

    def run(kind):
        if kind not in runs:
            folder = tmp_path_factory.mktemp("undisturbed")
            runs[kind] = programs.run(program, folder, *arguments(kind)), folder
        return runs[kind]

    return run


def check_kills(run, kills, undisturbed, folder):
    """Assert that a run with *kills*, in *folder*, tells what the undisturbed one does and ends with the same state."""
    base, base_folder = undisturbed
    assert run_killed(run, kills) == told(base)
    assert difference_at_end(base_folder, folder) is None
