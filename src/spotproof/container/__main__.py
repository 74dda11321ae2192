"""``python -m spotproof.container [torchrun] train.py [fixed arguments]``: run the program as SageMaker expects it."""

import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from spotproof.container.arguments import split_command_line
from spotproof.container.config import read_config
from spotproof.container.environment import Machine, build_environment
from spotproof.container.failure import describe_failure, write_failure
from spotproof.container.launcher import is_torchrun_asked, launch_by_torchrun, split_torchrun
from spotproof.container.packages import add_to_environment, build_install, build_resolve, read_report
from spotproof.container.process import SignalInbox, run
from spotproof.container.program import Command, build_command, choose_program
from spotproof.container.source import build_fetch, find_source
from spotproof.container.warm import read_ahead
from spotproof.contract import CODE_DIR, ENV_BASE_DIR, ENV_CHECKPOINT_DIR, EXIT_INTERRUPTED, ML_ROOT, PACKAGES_DIR
from spotproof.errors import SpotError

_INSTALL_ERROR = "InstallRequirementsError"
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
    source = find_source(config.hyperparameters, environ)
    if source is not None:
        failed = _run_helper(build_fetch(source, sys.executable), base, "DownloadSourceError", base, environ, inbox)
        if failed is not None:
            return failed
    is_torchrun, options, named, fixed = split_torchrun(*split_command_line(argv))
    program = choose_program(named, config.hyperparameters, environ, is_submitted=source is not None)
    command = build_command(
        program,
        fixed if program == named else [],
        config.hyperparameters,
        base=base,
        working_directory=Path.cwd(),
        python=sys.executable,
    )
    machine = _look_at_machine()
    environment = build_environment(config, base, program=command.program, machine=machine, inherited=environ)
    if source is not None:
        failed = _install_packages(base, environment, inbox)
        if failed is not None:
            return failed
        environment = add_to_environment(environment, base / PACKAGES_DIR)
    if is_torchrun or is_torchrun_asked(config.hyperparameters):
        command, environment = launch_by_torchrun(
            command,
            options,
            config,
            num_gpus=machine.num_gpus,
            python=sys.executable,
            environment=environment,
            inherited=environ,
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


def _install_packages(base: Path, environment: Mapping[str, str], inbox: SignalInbox) -> int | None:
    """Install what the submitted code needs; return an exit code if that did not work."""
    code = base / CODE_DIR
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        resolve = build_resolve(code, report, sys.executable)
        if resolve is None:
            return None
        _logger.info("installing what %s needs: %s", code, shlex.join(resolve))
        failed = _run_helper(resolve, code, _INSTALL_ERROR, base, environment, inbox)
        if failed is not None:
            return failed
        missing = read_report(report)
    if not missing:
        return None
    install = build_install(missing, base / PACKAGES_DIR, sys.executable)
    return _run_helper(install, code, _INSTALL_ERROR, base, environment, inbox)


def _run_helper(
    argv: list[str], directory: Path, error: str, base: Path, environment: Mapping[str, str], inbox: SignalInbox
) -> int | None:
    """Run a command before the program; return an exit code if it did not work, whose reason is told as *error*."""
    outcome = run(Command(program=argv[2], argv=argv, directory=directory), environment, inbox)
    if outcome.exit_code != 0 and not outcome.forwarded:
        _tell_failure(base, describe_failure(outcome.exit_code, outcome.stderr_tail, argv, error))
    return outcome.exit_code or None


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
