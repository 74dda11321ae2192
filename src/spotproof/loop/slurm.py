"""Slurm: which signals it sends, and how a job asks to be queued again.

Source: slurm.schedmd.com, sbatch ``--signal`` and ``--requeue``, scontrol ``requeue``.
"""

import logging
import re
import subprocess
from collections.abc import Mapping

__all__ = ["is_slurm", "requeue"]

log = logging.getLogger(__name__)

_REQUEUE_SECONDS = 20.0


def is_slurm(env: Mapping[str, str]) -> bool:
    """Whether this process is part of a Slurm job."""
    return "SLURM_JOB_ID" in env


def job_id(env: Mapping[str, str]) -> str:
    """Return the name of this job, or of this task of a job array, as scontrol takes it."""
    if env.get("SLURM_ARRAY_JOB_ID") and env.get("SLURM_ARRAY_TASK_ID"):
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env["SLURM_JOB_ID"]


def requeue(env: Mapping[str, str]) -> str:
    """Put this job back into its queue; return what came of it, for the log. Never raises."""
    name = job_id(env)
    if re.fullmatch(r"[0-9_]+", name) is None:
        return f"Slurm job {name!r} has no number and is not queued again."
    try:
        subprocess.run(
            ["scontrol", "requeue", name], check=True, capture_output=True, text=True, timeout=_REQUEUE_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as err:
        detail = getattr(err, "stderr", None) or err
        return (
            f"Slurm job {name} could not be queued again ({detail}). Submit it again, or run scontrol requeue {name}."
        )
    return f"Slurm job {name} is queued again."
