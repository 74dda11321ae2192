"""The plain PyTorch example, killed by SIGKILL as it runs, ends with the weights of an undisturbed run."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "examples" / "raw_pytorch" / "train.py"


def run(folder, kill_at=None):
    """Run the example in *folder*, killed as soon as it has told that step; return what it printed."""
    lines = []
    with subprocess.Popen([sys.executable, str(PROGRAM), str(folder)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            lines.append(line.strip())
            if kill_at is not None and line.startswith(f"step {kill_at} "):
                process.kill()
                break
        process.wait(60)
    assert process.returncode == (0 if kill_at is None else -9)
    return lines


def test_two_kills_leave_no_trace(tmp_path):
    """Losses of every step and the final weights are the same, and each attempt really resumed."""
    base = run(tmp_path / "base")
    first = run(tmp_path / "killed", kill_at=47)
    second = run(tmp_path / "killed", kill_at=131)
    last = run(tmp_path / "killed")

    assert first[0] == "from step 0"
    assert second[0] in ("from step 20", "from step 30", "from step 40")
    assert last[0] in ("from step 110", "from step 120", "from step 130")
    assert last[-1] == base[-1]
    assert last[-1].startswith("weights ")
    losses = dict(line.split(" loss ") for line in base[1:-1])
    for line in [*first[1:], *second[1:], *last[1:-1]]:
        step, loss = line.split(" loss ")
        assert losses[step] == loss
