"""How much grace there is, what is listened to, and how Slurm is asked for more."""

import os
import stat

import pytest

from spotproof.errors import SpecError
from spotproof.lightning import SpotCheckpoint
from spotproof.loop.departure import default_grace_seconds, default_notices
from spotproof.loop.slurm import requeue


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({}, 120),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 30),
        ({"SLURM_JOB_ID": "7"}, 30),
        ({"SPOTPROOF_GRACE_SECONDS": "45.5", "SLURM_JOB_ID": "7"}, 45.5),
        ({"SPOTPROOF_GRACE_SECONDS": "", "SLURM_JOB_ID": "7"}, 30),
    ],
)
def test_the_grace(env, seconds):
    """What is said counts, else the platform's own default."""
    assert default_grace_seconds(env) == seconds


def test_a_grace_that_is_no_number_is_refused():
    """With its name and its value."""
    with pytest.raises(SpecError, match="SPOTPROOF_GRACE_SECONDS='soon' is no number"):
        default_grace_seconds({"SPOTPROOF_GRACE_SECONDS": "soon"})


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_grace_below_zero_is_refused(tmp_path, seconds):
    """At construction, before anything is trained."""
    with pytest.raises(SpecError, match="grace_seconds"):
        SpotCheckpoint(tmp_path, grace_seconds=seconds)


def test_slurm_jobs_listen_to_sigusr1_too():
    """Elsewhere it may have another meaning, such as a dump of the stacks."""
    assert default_notices({}) == ("sigterm",)
    assert default_notices({"SLURM_JOB_ID": "7"}) == ("sigterm", "sigusr1")


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A program of that name which writes down what it is asked."""

    def make(exit_code):
        program = tmp_path / "scontrol"
        program.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\necho "no such job" >&2\nexit {exit_code}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "asked"

    return make


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}, "10_3"),
    ],
)
def test_a_job_is_queued_again(scontrol, env, name):
    """By its number, or by that of the task of an array."""
    asked = scontrol(0)

    assert requeue(env) == f"Slurm job {name} is queued again."
    assert asked.read_text() == f"requeue {name}\n"


def test_a_job_that_can_not_be_queued_again_is_said(scontrol):
    """With Slurm's own words and what to do."""
    scontrol(1)

    assert "could not be queued again (no such job" in requeue({"SLURM_JOB_ID": "12"})


def test_without_slurm_nothing_is_raised(monkeypatch):
    """No scontrol: said, not raised."""
    monkeypatch.setenv("PATH", "/nowhere")

    assert "scontrol requeue 12" in requeue({"SLURM_JOB_ID": "12"})
    assert "has no number" in requeue({"SLURM_JOB_ID": "12; reboot"})
