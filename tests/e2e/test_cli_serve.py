"""`spotproof serve` and the commands that speak to it, as a user types them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from counter_job import COUNTER, JOB, SOURCE

INSTANCE = next(line.split()[1] for line in JOB.splitlines() if line.startswith("instance_type"))


PRICES = """\
date: 2026-11-20
source: hand
prices:
  INSTANCE: {on_demand: 0.25}
""".replace("INSTANCE", INSTANCE)


class Shell:
    """A shell with a state folder of its own and no AWS settings."""

    def __init__(self, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        kept["PYTHONPATH"] = SOURCE
        self.environment = {**kept, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "100"}
        self.folder = folder

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "spotproof", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=self.environment, cwd=self.folder
        )

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "spotproof", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.folder,
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside a running server."""
    shell = Shell(tmp_path_factory.mktemp("serve"))
    (shell.folder / "data.txt").write_text("data")
    (shell.folder / "job.yaml").write_text(JOB.format(source=COUNTER).replace("steps: 40", "steps: 9000"))
    image = f"counter:latest={COUNTER}:python -m spotproof.container train.py"
    with shell.start("serve", "--port", "0", "--image", image) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            assert re.fullmatch(r"Local SageMaker ready at http://127\.0\.0\.1:\d+ \(state in .*\)\n", line), line
            yield shell
        finally:
            server.send_signal(signal.SIGTERM)
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) == 0
            assert not (shell.folder / "state/spotproof/local/server.json").exists()


def wait_until(shell: Shell, job: str, status: str) -> dict[str, Any]:
    """Return the job's row in `list` once its secondary status is *status*."""
    for _ in range(200):
        rows: list[dict[str, Any]] = shell.json("list")
        row = next(row for row in rows if row["TrainingJobName"] == job)
        if row["SecondaryStatus"] == status:
            return row
        assert row["TrainingJobStatus"] in ("InProgress", "Stopping"), row
        time.sleep(0.1)
    raise AssertionError(f"{job} never was {status}")


def test_a_job_from_launch_to_report(shell: Shell) -> None:
    """launch, list, logs, reclaim, stop, report and checkpoints work on one job of a server."""
    launched = shell.json("launch", "job.yaml", "--local")
    job = launched["job_name"]
    wait_until(shell, job, "Training")
    wait_until_log(shell, job, "step=12")

    assert job in shell.run("list").stdout
    reclaimed = shell.run("reclaim", job)
    assert reclaimed.returncode == 0, reclaimed.stderr
    assert "were taken away" in reclaimed.stdout
    wait_until_log(shell, job, "attempt=1")
    stopped = shell.run("stop", job)
    assert stopped.returncode == 0, stopped.stderr
    wait_until(shell, job, "Stopped")

    assert "step=12" in shell.run("logs", job).stdout
    summary = shell.json("report", job)
    assert summary["status"] == "Stopped"
    assert [attempt["outcome"] for attempt in summary["attempts"]] == ["reclaimed", "stopped"]
    assert summary["attempts"][1]["resumed_from_step"] > 0
    (shell.folder / "prices.yaml").write_text(PRICES)
    paid = shell.run("report", job, "--prices", "prices.yaml", "--html", "page.html")
    assert paid.returncode == 0, paid.stderr
    assert "reclaimed" in paid.stdout
    assert "at 0.25 USD/h" in paid.stdout
    assert "No curve: no loss is in the log" in (shell.folder / "page.html").read_text()
    unseen = shell.run("tensorboard", job, "--print")
    assert unseen.returncode == 2
    assert f"There are no TensorBoard files of {job}" in unseen.stderr
    assert "s3://counter-bucket/run/checkpoints/ (beside its checkpoints) holds none" in unseen.stderr.replace(
        "\n", " "
    )
    place = "s3://counter-bucket/run/checkpoints"
    assert shell.json("checkpoints", "verify", place)[0]["is_verified"] is True

    again = shell.run("stop", job)
    assert again.returncode == 3
    assert "Stopped" in again.stderr


def wait_until_log(shell: Shell, job: str, text: str) -> None:
    """Follow the job's log until it says *text*."""
    with shell.start("logs", job, "--follow") as process:
        assert process.stdout is not None
        assert any(text in line for line in process.stdout), f"the log of {job} ended without {text}"
        process.terminate()
        process.stdout.read()


def test_a_job_is_watched_and_left(shell: Shell) -> None:
    """watch gives a line for what changes; Ctrl-C leaves the job alone; its log goes on behind any line; list finds
    it; stop waits and says which step is safe."""
    text = (shell.folder / "job.yaml").read_text().replace("/run/", "/watched/")
    (shell.folder / "watched.yaml").write_text(text)
    job = shell.json("launch", "watched.yaml", "--local")["job_name"]
    with shell.start("watch", job, "--json") as process:
        assert process.stdout is not None
        view = next(json.loads(line) for line in process.stdout if json.loads(line)["step"])
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(timeout=30) == 130
    assert (view["job_name"], view["phase"], view["is_spot"]) == (job, "Training", True)
    assert view["total_steps"] == 9000
    assert view["spent_usd"] is None

    rows = shell.json("list", "--status", "inprogress", "--name-contains", job.upper(), "--since", "1h")
    assert [row["TrainingJobName"] for row in rows] == [job]
    assert rows[0]["step"] >= view["step"]
    stopped = shell.json("stop", job, "--wait")
    assert stopped["status"] == "Stopped"
    assert stopped["checkpoint_step"] >= rows[0]["step"] // 5 * 5  # it saves each fifth

    lines = [json.loads(line) for line in shell.run("logs", job, "--json").stdout.splitlines()]
    behind = shell.run("logs", job, "--json", "--after", lines[4]["token"]).stdout.splitlines()
    assert [json.loads(line) for line in behind] == lines[5:]
    assert len(shell.run("logs", job, "--tail", "3").stdout.splitlines()) == 3
    assert shell.run("logs", job, "--host", "algo-2").stdout == ""


def test_a_deadline_makes_it_a_run(shell: Shell) -> None:
    """launch supervises a job with a deadline: it says what it does, and a finished run is found again by its name."""
    text = (shell.folder / "job.yaml").read_text().replace("steps: 9000", "steps: 60").replace("/run/", "/deadline/")
    (shell.folder / "deadline.yaml").write_text(text.replace("max_run: 600", "max_run: 60") + "deadline: 300s\n")

    begun = shell.run("launch", "deadline.yaml", "--local", "--json")

    assert begun.returncode == 0, begun.stderr
    lines = [json.loads(line) for line in begun.stdout.splitlines()]
    decisions = [(line["decision"], line["reason"]) for line in lines if "decision" in line]
    assert decisions == [("submit", "there is time to wait for spot"), ("end", "completed")]
    assert [line["status"] for line in lines if "status" in line][-1] == "Completed"
    again = shell.run("supervise", lines[0]["run"], "--local")
    assert again.returncode == 0, again.stderr
    assert "completed" in again.stdout
    other = shell.run("supervise", lines[0]["run"], "--local", "--deadline", "3h")
    assert other.returncode == 2
    assert "stands in its record" in other.stderr


def test_unknown_job(shell: Shell) -> None:
    """A job that is not there is said so, by every command that names one: exit 3, or 6 for reclaim."""
    for command in (["logs"], ["stop"], ["report"], ["watch"]):
        result = shell.run(*command, "no-such-job")
        assert result.returncode == 3
        assert "'no-such-job'" in result.stderr
    assert shell.run("reclaim", "no-such-job").returncode == 6


def test_second_server_on_the_same_state(shell: Shell) -> None:
    """A second server on a folder in use is refused with words, and the first goes on."""
    result = shell.run("serve")

    assert result.returncode == 6
    assert "is in use" in result.stderr
    assert shell.run("list").returncode == 0


def test_busy_port(tmp_path: Path) -> None:
    """A port that another program holds is named, with what to do."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = Shell(tmp_path).run("serve", "--port", str(port))

    assert result.returncode == 6
    assert str(port) in result.stderr
    assert "Traceback" not in result.stderr
