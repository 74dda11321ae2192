"""The plain loops of the examples, killed by SIGKILL as they run, end with the weights of an undisturbed run."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"

RUN = """
import builtins, os, runpy, signal, sys
from spotproof.checkpoint import Checkpointer

program, folder, kill_at = sys.argv[1:]
plain_print, plain_save = print, Checkpointer.save


def printing(*args, **options):
    plain_print(*args, **options)
    if args and str(args[0]).startswith(f"step {kill_at} "):
        os.kill(os.getpid(), signal.SIGKILL)


# What a kill finds on the disk must not depend on the disk's speed: each save is waited for.
Checkpointer.save = lambda self, step, **options: plain_save(self, step, **{**options, "wait": True})
builtins.print = printing
sys.argv = [program, folder]
runpy.run_path(program, run_name="__main__")
"""


def run(program, folder, kill_at=None):
    """Run an example in *folder*, killed in the moment it has told that step; return the lines it printed."""
    command = [sys.executable, "-c", RUN, str(EXAMPLES / program), str(folder), str(kill_at)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=100, check=False)
    assert ended.returncode == (0 if kill_at is None else -9)
    return ended.stdout.splitlines()


def test_two_kills_leave_no_trace(tmp_path):
    """Losses of every step and the final weights are the same, and each attempt resumes from the newest save."""
    program = "raw_pytorch/train.py"
    base = run(program, tmp_path / "base")
    first = run(program, tmp_path / "killed", kill_at=47)
    second = run(program, tmp_path / "killed", kill_at=131)
    last = run(program, tmp_path / "killed")

    assert (first[0], second[0], last[0]) == ("from step 0", "from step 40", "from step 130")
    assert last[-1] == base[-1]
    assert last[-1].startswith("weights ")
    losses = dict(line.split(" loss ") for line in base[1:-1])
    for line in [*first[1:], *second[1:], *last[1:-1]]:
        step, loss = line.split(" loss ")
        assert losses[step] == loss
