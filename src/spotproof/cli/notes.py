"""Small notes of this user's own on this machine, beside what services know. None of them is needed to go on."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spotproof.userdir import user_folder

__all__ = ["read_note", "write_note"]


def write_note(kind: str, name: str, fields: Mapping[str, Any]) -> None:
    """Remember *fields* of *name*. That this can't be written is no reason to fail."""
    path = _path(kind, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fields), encoding="utf-8")
    except OSError:
        return


def read_note(kind: str, name: str) -> dict[str, Any]:
    """Return what was noted of *name*; nothing if it was not from here."""
    try:
        found = json.loads(_path(kind, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _path(kind: str, name: str) -> Path:
    # Names of jobs and runs have nothing else, but what a user types may.
    return user_folder(os.environ) / kind / (re.sub(r"[^\w.-]", "_", name) + ".json")
