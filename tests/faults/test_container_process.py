"""Real processes: what ``python -m spotproof.container`` does as the parent of a program."""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is Linux's")


class Container:
    """A container's directories and the process that runs in them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        (base / "code").mkdir(parents=True)
        (base / "input/config").mkdir(parents=True)

    def write_program(self, text: str, name: str = "train.py") -> None:
        (self.base / "code" / name).write_text(textwrap.dedent(text))

    def write_config(self, name: str, content: object) -> None:
        (self.base / "input/config" / name).write_text(json.dumps(content))

    def start(self, *argv: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "spotproof.container", *(argv or ("train.py",))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(self.base), **environ},
        )

    def run(self, *argv: str, **environ: str) -> tuple[int, str, str]:
        process = self.start(*argv, **environ)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def failure(self) -> str | None:
        path = self.base / "output/failure"
        return path.read_text() if path.exists() else None


@pytest.fixture
def container(tmp_path):
    return Container(tmp_path / "ml")


def has_ended(pid: int) -> bool:
    """Wait for the end of a process that is not our child, by its own pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], 30)[0])
    finally:
        os.close(fd)


def test_arguments_variables_and_directory_reach_the_program(container):
    """The program sees the job as on SageMaker."""
    container.write_config("hyperparameters.json", {"data": '"X"', "trainer.max_epochs": "2"})
    container.write_config("checkpointconfig.json", {"LocalPath": "/opt/ml/checkpoints"})
    container.write_program(
        """
        import json, os, sys
        print(json.dumps([sys.argv[1:], os.getcwd(), os.environ["SM_CHECKPOINT_DIR"], os.environ["SM_NUM_CPUS"]]))
        """
    )

    code, out, _ = container.run("train.py", "--fixed", "train")

    argv, directory, checkpoints, cpus = json.loads(out)
    assert code == 0
    assert argv == ["--fixed", "--data", "X", "--trainer.max_epochs", "2"]
    assert Path(directory) == container.base / "code"
    assert Path(checkpoints) == container.base / "checkpoints"
    assert int(cpus) == os.cpu_count()
    assert container.failure is None


def test_exception(container):
    """An exception ends in the toolkit's failure text, and its traceback in the log, untouched."""
    container.write_program("raise ValueError('boom')")

    code, _, err = container.run()

    assert code == 1
    assert 'File "' in err
    assert err.rstrip().endswith("ValueError: boom")
    assert container.failure.startswith(
        'ExecuteUserScriptError:\nExitCode 1\nErrorMessage "ValueError: boom"\nCommand "'
    )


def test_exit_code(container):
    """The program's exit code is the container's."""
    container.write_program("import sys; sys.exit(7)")

    assert container.run()[0] == 7
    assert "ExitCode 7" in container.failure


def test_own_reason(container):
    """A reason that the program wrote itself stays."""
    container.write_program(
        """
        import os, sys
        os.makedirs("../output", exist_ok=True)
        open("../output/failure", "w").write("out of luck")
        sys.exit(3)
        """
    )

    assert container.run()[0] == 3
    assert container.failure == "out of luck"


def test_killed_program(container):
    """A program killed by a signal gives 128 + its number, and says so."""
    container.write_program("import os; os.kill(os.getpid(), 9)")

    assert container.run()[0] == 137
    assert "SIGKILL" in container.failure


def test_missing_program(container):
    """A missing program is told in one sentence, not in a traceback."""
    code, _, err = container.run("nothing.py")

    assert code == 2
    assert "The program nothing.py does not exist." in err
    assert "Traceback" not in err
    assert container.failure.startswith("SpecError: The program nothing.py")


def test_damaged_configuration(container):
    """A damaged configuration file is named in log and reason."""
    container.write_program("")
    (container.base / "input/config/hyperparameters.json").write_text("{")

    code, _, err = container.run()

    assert code == 2
    assert "hyperparameters.json cannot be read" in err
    assert "hyperparameters.json" in container.failure


def test_program_that_cannot_be_started(container):
    """An interpreter that the image lacks is an error of words."""
    container.write_program("#!/no/such/interpreter\n", name="go")
    (container.base / "code/go").chmod(0o755)

    code, _, err = container.run("go")

    assert code == 2
    assert "could not be started" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_program(container, number):
    """The program's own handler decides what SIGTERM means; leaving with 143 is no failure."""
    container.write_program(
        """
        import signal, sys
        def leave(number, frame):
            print("got", signal.Signals(number).name)
            sys.exit(143)
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        print("ready")
        while True:
            signal.pause()
        """
    )
    process = container.start()
    assert process.stdout.readline() == "ready\n"

    process.send_signal(number)

    assert process.stdout.readline() == f"got {number.name}\n"
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert container.failure is None


def test_output_is_not_held_back(container):
    """A line is readable when it is printed, not when the program ends."""
    container.write_program("import sys; print('out'); print('err', file=sys.stderr); sys.stdin.read(); input()")
    process = container.start()

    assert process.stdout.readline() == "out\n"
    while process.stderr.readline() != "err\n":
        pass
    process.communicate(timeout=30)


def test_more_stderr_than_a_pipe_holds(container):
    """A talkative program neither blocks nor loses a byte, and its last words are the reason."""
    container.write_program(
        """
        import sys
        for _ in range(999):
            sys.stderr.write("y" * 999 + "\\n")
        sys.exit("last words")
        """
    )

    code, _, err = container.run()

    assert code == 1
    assert err.count("y") >= 999 * 999
    assert "last words" in container.failure


def test_orphans_are_reaped_and_none_stays(container):
    """An orphan that ends is reaped while the program runs; one that stays is ended with it."""
    container.write_program(
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        print(os.getpid(), file=open("pid.part", "w"), flush=True)
        os.rename("pid.part", "pid")
        time.sleep(600)
        """,
        name="stay.py",
    )
    container.write_program(
        """
        import os, subprocess, sys, time
        subprocess.run(["/bin/sh", "-c", f'"{sys.executable}" stay.py &'], check=True)
        shell = ["/bin/sh", "-c", "true >/dev/null & echo $!"]
        orphan = subprocess.run(shell, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        while os.path.exists(f"/proc/{orphan}") or not os.path.exists("pid"):
            time.sleep(0.01)
        print("orphan reaped")
        """
    )

    code, out, _ = container.run()

    assert (code, out) == (0, "orphan reaped\n")
    assert has_ended(int((container.base / "code/pid").read_text()))


def test_the_program_dies_with_a_killed_container(container):
    """SIGKILL of the container process ends the program, too: no half-dead attempt goes on writing."""
    container.write_program("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    process = container.start()
    pid = int(process.stdout.readline())

    process.kill()
    process.wait(timeout=30)
    ended = has_ended(pid)
    process.communicate(timeout=30)

    assert ended
