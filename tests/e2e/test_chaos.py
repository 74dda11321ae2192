"""`spotproof rehearse --chaos`: what resumes from whole checkpoints passes; what trusts its newest file does not."""

import json
from pathlib import Path

import pytest
from counter_job import rehearse

EXAMPLE = Path(__file__).parents[2] / "examples/cifar10/digits.yaml"
MIRRORED = ["--set", "steps=150", "--set", "mirrored_after=6"]
"""Every attempt that saves at all has something in S3 when it is reclaimed, on a slow machine as on a fast one."""
CHAOS = ["--chaos", "--seed", "7", *MIRRORED]
KINDS = {"torn", "lost", "corrupt", "late", "reorder", "stall", "no-flush", "download-fail", "download-lost"}
S3_KINDS = {"error", "throttle", "reset", "latency", "bandwidth"}


def test_a_job_that_verifies_survives_everything(job: Path) -> None:
    """Reclaimed again and again, through all faults, it ends with the same model; the report tells what was done."""
    result = rehearse(job, *CHAOS, "--json")

    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["verdict"]["is_identical"] is True
    assert summary["num_interruptions"] == summary["reclaims_planned"] == 7
    assert summary["num_resumes"] >= 1
    faults = summary["faults"]
    assert faults["seed"] == 7
    assert "--seed 7" in result.stderr
    injected = {item["kind"] for item in faults["injected"]}
    assert injected <= KINDS | S3_KINDS
    assert {"reorder", "stall", "no-flush", "late", "latency", "bandwidth"} <= injected
    assert all(item["count"] > 0 and item["examples"] for item in faults["injected"])
    costs = {item["attempt"]: item["lost_steps"] for item in faults["injected"] if item["attempt"] is not None}
    assert all(costs[attempt] == summary["attempts"][attempt]["lost_steps"] for attempt in costs)


def test_a_job_that_trusts_its_newest_file_is_found(job: Path) -> None:
    """It crashes on a file that is cut or missing, or ends with another model; which fault it was is told."""
    result = rehearse(job, *CHAOS, "--set", "mutant=trusting")

    assert result.returncode in (3, 7), result.stdout + result.stderr
    assert "What was done to it:" in result.stderr
    assert "began with" in result.stderr
    assert "--sync-faults '" in result.stderr


@pytest.mark.slow
def test_one_fault_alone(job: Path) -> None:
    """A fault can be named; all packs lost in S3, the job begins anew, which is said, and JSON knows it."""
    faults = ["--sync-faults", "lost:1@files=packs/*", "--reclaim", "step:30", "--set", "mirrored_after=11"]
    result = rehearse(job, *faults, "--json")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert [attempt["began_anew"] for attempt in summary["attempts"]] == [False, True]
    assert summary["num_resumes"] == 0
    assert {item["kind"] for item in summary["faults"]["injected"]} == {"lost"}
    assert "packs/" in summary["faults"]["given"]["1"][0]

    # The same without a verifying resume: it fails, and the report of the faults is part of the error.
    result = rehearse(job, *faults, "--set", "mutant=trusting")
    assert result.returncode == 3
    assert "attempt 1 began with packs/" in result.stderr
    assert "lost in attempt 0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seed", "3"], "Add --chaos"),
        (["--chaos", "--no-compare"], "--no-compare"),
        (["--sync-faults", "tear:1"], "tear:1"),
        (["--s3-faults", "error:2"], "error:0.2"),
    ],
)
def test_wrong_requests_start_nothing(job: Path, arguments: list[str], expected: str) -> None:
    """Options are checked before anything starts: exit 2 with the remedy."""
    result = rehearse(job, *arguments)

    assert result.returncode == 2
    assert expected in result.stderr
    assert "local SageMaker at" not in result.stderr + result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("mutant", ["none", "trusting"])
def test_other_seeds(job: Path, seed: int, mutant: str) -> None:
    """It is not one lucky draw: with any seed the one survives, and the other does not."""
    arguments = ["--chaos", "--seed", str(seed), *MIRRORED, "--set", f"mutant={mutant}"]
    result = rehearse(job, *arguments)

    assert result.returncode in ((0,) if mutant == "none" else (3, 7)), result.stdout + result.stderr


@pytest.mark.slow
def test_the_example_survives_chaos() -> None:
    """ResNet-18 on digits, with Lightning: augmentation, optimizer, schedules, loggers and all."""
    result = rehearse(EXAMPLE, "--chaos", "--seed", "7", timeout_seconds=1700)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "identical: yes" in result.stdout
