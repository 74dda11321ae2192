"""Why a program failed, in the words of ``/opt/ml/output/failure``.

SageMaker shows the first 1,024 characters of that file as the job's FailureReason, behind ``AlgorithmError: ``.

Source: aws/sagemaker-training-toolkit ``errors.py`` (``_CalledProcessError.__str__``).
"""

import signal
from collections.abc import Sequence
from pathlib import Path

from spotproof.contract import FAILURE_FILE, FAILURE_REASON_MAX_CHARS

__all__ = ["describe_failure", "last_error", "signal_name", "write_failure"]

_TRACEBACK = "Traceback (most recent call last):"
_MESSAGE_MAX_CHARS = 640
_TOTAL_MAX_CHARS = FAILURE_REASON_MAX_CHARS - len("AlgorithmError: ")
_TAIL_LINES = 5


def last_error(stderr: str) -> str:
    """Return the exception that ends *stderr*, without its frames; its last lines if there is no traceback."""
    _, found, traceback = stderr.rpartition(_TRACEBACK)
    if found:
        lines = traceback.strip("\n").splitlines()
        # Frames are indented; the first line that is not starts the exception.
        start = next((number for number, line in enumerate(lines) if line and not line[0].isspace()), len(lines))
        message = "\n".join(lines[start:]).strip()
        if message:
            return _cut_end(message, _MESSAGE_MAX_CHARS)
    lines = [line for line in stderr.splitlines() if line.strip()]
    return _cut_start("\n".join(lines[-_TAIL_LINES:]), _MESSAGE_MAX_CHARS)


def describe_failure(exit_code: int, stderr: str, argv: Sequence[str], error: str = "ExecuteUserScriptError") -> str:
    """Return the failure text for a program that ended with *exit_code*; it fits into a FailureReason.

    *error* is the toolkit's name for what has failed.
    """
    message = last_error(stderr)
    killed_by = signal_name(exit_code)
    if killed_by == "SIGKILL":
        message = f"{message}\nThe program was killed by SIGKILL, as the kernel does when memory runs out.".strip()
    elif killed_by:
        message = f"{message}\nThe program was killed by {killed_by}.".strip()
    head = f'{error}:\nExitCode {exit_code}\nErrorMessage "{message}"\nCommand "'
    return head + _cut_end(" ".join(argv), _TOTAL_MAX_CHARS - len(head) - 1) + '"'


def signal_name(exit_code: int) -> str:
    """Return the name of the signal that an *exit_code* above 128 stands for, or an empty text."""
    try:
        return signal.Signals(exit_code - 128).name if exit_code > 128 else ""
    except ValueError:
        return ""


def write_failure(base: Path, text: str) -> None:
    """Write *text* as the reason, unless the program has written one itself: it knows better."""
    path = base / FAILURE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        pass


def _cut_end(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _cut_start(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else "…" + text[1 - max_chars :]
