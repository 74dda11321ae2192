"""Where Spotproof keeps what belongs to this user, on this machine."""

from collections.abc import Mapping
from pathlib import Path

__all__ = ["user_folder"]


def user_folder(environ: Mapping[str, str]) -> Path:
    """Return ``$XDG_STATE_HOME/spotproof``, or where that is by default. It need not be there yet."""
    state_home = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state_home).expanduser().absolute() / "spotproof"
