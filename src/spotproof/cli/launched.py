"""What was asked for when a job was launched from this machine: the service tells only what it made of it."""

import json
import os
from pathlib import Path

from spotproof.userdir import user_folder

__all__ = ["note_launched", "was_spot_asked"]


def note_launched(job_name: str, *, is_spot: bool) -> None:
    """Remember how *job_name* was submitted. That this can't be written is no reason to fail: the job runs."""
    path = _path(job_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"is_spot": is_spot}), encoding="utf-8")
    except OSError:
        return


def was_spot_asked(job_name: str) -> bool | None:
    """Return whether *job_name* was submitted for managed spot; None if it was not from here."""
    try:
        return bool(json.loads(_path(job_name).read_text(encoding="utf-8"))["is_spot"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(job_name: str) -> Path:
    # A job's name has no slash, but what a user types may have one.
    return user_folder(os.environ) / "launched" / (job_name.replace("/", "_").replace("\0", "_") + ".json")
