"""What was found before a job is launched, as ``launch`` and ``supervise`` show it; what fails keeps it from that."""

from typing import TYPE_CHECKING

from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.launch.preflight import Check

__all__ = ["check_as_json", "refuse_failed", "show_dry_run", "show_found"]


def refuse_failed(checks: "list[Check]", source: str, *, is_strict: bool) -> None:
    """Raise if one of *checks* failed.

    Raises:
        SpecError: *source*, the job, is not launched.
    """
    from spotproof.launch.preflight import failed

    refused = failed(checks, is_strict=is_strict)
    if refused:
        subjects = ", ".join(dict.fromkeys(check.subject for check in refused))
        raise SpecError(
            f"{source} is not launched.",
            why=f"{len(refused)} of {len(checks)} checks failed: {subjects}. Nothing was uploaded or started.",
            do="Correct what they name; `spotproof launch --dry-run` checks again.",
        )


def show_found(checks: "list[Check]", *, is_local: bool) -> None:
    """Show what is not as it should be, on stderr."""
    # What the local platform does not have need not be told at every launch.
    told = ("warning", "error") if is_local else ("warning", "error", "unknown")
    _show([check for check in checks if check.outcome in told], is_result=False)


def show_dry_run(checks: "list[Check]", request: dict[str, object], as_json: bool) -> None:
    """Show all *checks* and the *request* that would be sent, as the result."""
    from spotproof.cli.console import print_json, print_line

    if as_json:
        print_json({"checks": [check_as_json(check) for check in checks], "request": request})
        return
    _show(checks, is_result=True)
    print_line("CreateTrainingJob:")
    print_json(request)


def check_as_json(check: "Check") -> dict[str, str]:
    """Return *check* as plain JSON values."""
    return {"subject": check.subject, "outcome": check.outcome, "text": check.text, "do": check.do}


_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "unknown": "dim"}
_SHOWN = {"ok": "ok", "warning": "warning", "error": "error", "unknown": "not seen"}


def _show(checks: "list[Check]", *, is_result: bool) -> None:
    from rich.text import Text

    from spotproof.cli.console import print_table

    rows = []
    for check in checks:
        text = Text(check.text, style="dim" if check.outcome == "unknown" else "")
        if check.do:
            text.append(f"\n→ {check.do}")
        rows.append((check.subject, Text(_SHOWN[check.outcome], style=_STYLES[check.outcome]), text))
    if rows:
        print_table(("check", "", "what was found"), rows, stderr=not is_result)
