"""What was asked for when a job was launched from this machine: the service tells only what it made of it."""

from spotproof.cli.notes import read_note, write_note

__all__ = ["note_launched", "was_spot_asked"]

_KIND = "launched"


def note_launched(job_name: str, *, is_spot: bool) -> None:
    """Remember how *job_name* was submitted."""
    write_note(_KIND, job_name, {"is_spot": is_spot})


def was_spot_asked(job_name: str) -> bool | None:
    """Return whether *job_name* was submitted for managed spot; None if it was not from here."""
    is_spot = read_note(_KIND, job_name).get("is_spot")
    return is_spot if isinstance(is_spot, bool) else None
