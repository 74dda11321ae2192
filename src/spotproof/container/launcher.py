"""Ranks by torchrun's elastic agent, not one process a host: ``python -m spotproof.container torchrun train.py``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spotproof.container.arguments import decode_hyperparameters
from spotproof.container.config import ContainerConfig
from spotproof.container.program import Command
from spotproof.contract import ENV_JOB_NAME, STOP_GRACE_SECONDS
from spotproof.errors import SpecError

__all__ = ["RENDEZVOUS_PORT", "is_torchrun_asked", "launch_by_torchrun", "split_torchrun"]

RENDEZVOUS_PORT = 29400
"""Source: torchrun's documentation, the default of ``--rdzv-endpoint``."""
_WORD = "torchrun"
_HYPERPARAMETER = "sagemaker_torch_distributed_enabled"
"""Source: aws/sagemaker-training-toolkit ``params.py``; the SDK sends it for ``torch_distributed``."""


def split_torchrun(named: str | None, fixed: Sequence[str]) -> tuple[bool, list[str], str | None, list[str]]:
    """Return whether the command line begins with ``torchrun``, its options, and program and arguments behind them.

    An option is one word: ``--nproc-per-node=2``.
    """
    if named != _WORD:
        return False, [], named, list(fixed)
    options = []
    words = list(fixed)
    while words and words[0].startswith("-"):
        options.append(words.pop(0))
    return True, options, (words[0] if words else None), words[1:]


def is_torchrun_asked(raw_hyperparameters: Mapping[str, Any]) -> bool:
    """Tell whether the job asks for torchrun as AWS's toolkit lets it."""
    return decode_hyperparameters(raw_hyperparameters).get(_HYPERPARAMETER) is True


def launch_by_torchrun(
    command: Command,
    options: Sequence[str],
    config: ContainerConfig,
    *,
    num_gpus: int,
    python: str,
    environment: Mapping[str, str],
    inherited: Mapping[str, str],
) -> tuple[Command, dict[str, str]]:
    """Return *command* under torchrun, and its environment: a rank for each GPU, or one, on each host.

    *options* are torchrun's own and win. The agent numbers hosts and ranks as they come, so that what the plain wiring
    says of them is left out.

    Raises:
        SpecError: The program is no Python file.
    """
    if not command.program.endswith(".py"):
        raise SpecError(
            f"torchrun can't start {command.program}.",
            why="It starts Python files.",
            do="Name a .py file, or leave the word torchrun out.",
        )
    where = ["--standalone"]
    if len(config.hosts) > 1:
        address = inherited.get("MASTER_ADDR", config.hosts[0])
        port = inherited.get("MASTER_PORT", RENDEZVOUS_PORT)
        where = [
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={address}:{port}",
            f"--rdzv-id={inherited.get(ENV_JOB_NAME, 'job')}",
        ]
    own = [f"--nnodes={len(config.hosts)}", f"--nproc-per-node={max(1, num_gpus)}", *where]
    argv = [python, "-m", "spotproof.container.elastic", *own, *options, *command.argv[1:]]
    plain = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "RANK", "WORLD_SIZE"}
    kept = {name: value for name, value in environment.items() if name not in plain}
    # Ranks that were asked to leave get as long as the platform gives us; torchrun's own patience is 30 s.
    kept.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(STOP_GRACE_SECONDS))
    return replace(command, argv=argv), kept
