"""``python -m spotproof.container train.py [fixed arguments]``: run the program as SageMaker expects it."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spotproof.container.arguments import split_command_line
from spotproof.container.config import read_config
from spotproof.container.environment import Machine, build_environment
from spotproof.container.failure import describe_failure, write_failure
from spotproof.container.process import SignalInbox, run
from spotproof.container.program import build_command, choose_program
from spotproof.container.warm import read_ahead
from spotproof.contract import ENV_BASE_DIR, ENV_CHECKPOINT_DIR, EXIT_INTERRUPTED, ML_ROOT
from spotproof.errors import SpotError

_logger = logging.getLogger("spotproof.container")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program that *argv* or the job names; return its exit code, or that of the error that kept it from it."""
    inbox = SignalInbox()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    base = Path(environ.get(ENV_BASE_DIR) or ML_ROOT)
    try:
        return _run_program(argv, environ, base, inbox)
    except SpotError as err:
        _logger.error("%s", err)
        _tell_failure(base, f"{type(err).__name__}: {err}")
        return err.exit_code


def _run_program(argv: Sequence[str], environ: Mapping[str, str], base: Path, inbox: SignalInbox) -> int:
    config = read_config(base)
    named, fixed = split_command_line(argv)
    command = build_command(
        choose_program(named, config.hyperparameters, environ),
        fixed,
        config.hyperparameters,
        base=base,
        working_directory=Path.cwd(),
        python=sys.executable,
    )
    environment = build_environment(
        config, base, program=command.program, machine=_look_at_machine(), inherited=environ
    )
    _logger.info(
        "host=%s of %d, in %s: %s", config.current_host, len(config.hosts), command.directory, shlex.join(command.argv)
    )
    checkpoints = environment.get(ENV_CHECKPOINT_DIR)
    outcome = run(command, environment, inbox, beside=lambda: read_ahead(Path(checkpoints)) if checkpoints else None)
    if outcome.exit_code == EXIT_INTERRUPTED and outcome.forwarded:
        _logger.info("The program left after %s, as it was asked to.", outcome.forwarded[0].name)
    elif outcome.exit_code != 0:
        _tell_failure(base, describe_failure(outcome.exit_code, outcome.stderr_tail, command.argv))
    return outcome.exit_code


def _tell_failure(base: Path, text: str) -> None:
    try:
        write_failure(base, text)
    except OSError as err:
        _logger.warning("The reason could not be written below %s (%s): %s", base, err, text)


def _look_at_machine() -> Machine:
    devices = os.listdir("/dev")
    return Machine(
        num_cpus=os.cpu_count() or 1,
        num_gpus=sum(re.fullmatch(r"nvidia\d+", device) is not None for device in devices),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
