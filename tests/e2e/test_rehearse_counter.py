"""`spotproof rehearse` for real: local SageMaker, boto3, SIGKILL, S3, verdict; with a tiny program without torch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from counter_job import environment, rehearse


def test_two_reclaims_end_with_the_same_model(job: Path) -> None:
    """Killed twice inside a checkpoint interval, the job ends with the undisturbed run's checkpoint, bit for bit."""
    prices = job.with_name("prices.yaml")
    prices.write_text("date: 2026-11-20\nsource: hand\nregion: eu-west-1\nprices: {ml.m5.large: {on_demand: 0.115}}\n")
    result = rehearse(job, "--reclaim", "step:13,step:28", "--json", "--prices", str(prices))

    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["verdict"]["is_identical"] is True
    assert "step 40" in summary["verdict"]["compared"]
    assert summary["num_interruptions"] == summary["reclaims_planned"] == 2
    assert [attempt["outcome"] for attempt in summary["attempts"]] == ["reclaimed", "reclaimed", "finished"]
    assert summary["final_step"] == 40
    # Five steps between saves and one interval that was not mirrored yet; the kill itself comes a few steps late.
    for attempt in summary["attempts"]:
        assert attempt["lost_steps"] <= 20
        assert attempt["resumed_from_step"] % 5 == 0
    assert summary["lost_steps"] >= 1
    assert summary["undisturbed_source"] == "measured"
    assert 0 < summary["billable_seconds"] <= summary["training_seconds"]
    assert 0 < summary["goodput"] < 1
    # The job names no region, so that of the file holds; what was really billed, times the file's price.
    cost = summary["cost"]
    assert cost["usd"] == pytest.approx(summary["billable_seconds"] / 3600 * 0.115)
    assert cost["undisturbed_usd"] == pytest.approx(summary["undisturbed_seconds"] / 3600 * 0.115)
    assert cost["is_local"] is True
    assert "Interrupted" in result.stderr


def test_mutant_is_found_and_the_report_is_still_printed(job: Path) -> None:
    """A program that resumes at the right step with a wrong state fails with exit 7 and the first difference. When to
    reclaim it is not said, and follows from the undisturbed run."""
    result = rehearse(job, "--set", "mutant=forget", "--set", "mirrored_after=11")

    assert result.returncode == 7
    assert "to be reclaimed at step:20,step:32" in result.stdout
    assert "identical: no" in result.stdout
    assert "reclaimed" in result.stdout
    assert "no price" in result.stdout
    assert "`spotproof prices update` gets one" in result.stdout
    assert "model/value" in result.stderr


def test_broken_program_shows_its_own_traceback(job: Path) -> None:
    """An exception in the program ends the rehearsal with SageMaker's reason and the end of the log: exit 3."""
    result = rehearse(job, "--reclaim", "none", "--set", "fail_at=3")

    assert result.returncode == 3
    assert "ended Failed: AlgorithmError:" in result.stderr
    assert "RuntimeError: no step 3 today" in result.stderr
    assert "exit code: 1" in result.stderr


def test_reclaim_that_never_came_due(job: Path) -> None:
    """A job that finishes before the planned reclaim proves nothing: exit 1, unless that is allowed."""
    result = rehearse(job, "--reclaim", "step:9999", "--no-compare", "--set", "steps=5")
    assert result.returncode == 1
    assert "0 of 1 planned reclaims happened" in result.stderr
    assert "finished at step 5" in result.stderr


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("entrypoint: train.py", ["--reclaim", "stop:3"], "stop:3"),
        ("entrypoint: trian.py", [], "trian.py, which does not exist"),
        ("max_wiat: 3", [], "Did you mean 'max_wait'"),
        ("entrypoint: train.py", ["--hosts", "docker"], "auto, namespace or plain"),
        ("entrypoint: train.py", ["--input", "training"], "--input NAME=VALUE"),
    ],
)
def test_wrong_requests_start_nothing(job: Path, text: str, arguments: list[str], expected: str) -> None:
    """Schedule, file and options are checked before anything starts: exit 2 with the remedy."""
    job.write_text(job.read_text().replace("entrypoint: train.py", text))
    result = rehearse(job, *arguments)

    assert result.returncode == 2
    assert expected in result.stderr
    assert "local SageMaker at" not in result.stderr + result.stdout


def hears_ctrl_c() -> None:
    """Undo what a shell does to a test run in the background: it lets all that is started there ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_it_leaves_nothing_behind(job: Path, tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C (twice) or SIGTERM in the middle of an attempt leaves no process, and no state."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "spotproof", "rehearse", str(job), "--set", "step_seconds=9", "--reclaim", "none"]
    variables = {**environment(), "TMPDIR": str(scratch)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=variables,
        preexec_fn=hears_ctrl_c,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Training" in line:
                break
        assert processes_that_name(str(scratch))

        process.send_signal(number)
        process.send_signal(number)
        process.stdout.read()

        assert process.wait(timeout=30) == code
    assert processes_that_name(str(scratch)) == []
    assert list(scratch.iterdir()) == []


def processes_that_name(text: str) -> list[str]:
    """Command lines of living processes, other than pytest's own, that name *text*."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(line)
    return found
