"""The command line: parse, call, print. No logic of its own; every command has ``--json``."""

import io
import sys
from collections.abc import Sequence

__all__ = ["main", "run"]


class _CurrentStderr(io.TextIOBase):
    """Whatever stderr is now: while a progress bar is shown, rich puts lines above it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def main() -> None:
    """Run the command line and exit with its code: 0, or that of the error (see :mod:`spotproof.errors`)."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command; return its exit code. Errors made for people are shown as one message, without a traceback."""
    import logging
    import os

    from spotproof.cli.app import app
    from spotproof.errors import SpotError

    _write_what_can_be_shown()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=_CurrentStderr())
    try:
        app(list(argv), prog_name="spotproof")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has had enough (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (SpotError, OSError, ModuleNotFoundError) as error:
        from spotproof.cli.console import show_error
        from spotproof.cli.extras import missing_extra

        told = missing_extra(error) if isinstance(error, ModuleNotFoundError) else error
        if told is None or os.environ.get("SPOTPROOF_DEBUG") == "1":
            raise
        show_error(told)
        return told.exit_code if isinstance(told, SpotError) else 1
    return 0


def _write_what_can_be_shown() -> None:
    """Let a terminal that is not of UTF-8 show `?` for a bar or an accent, rather than end a command in its output."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
