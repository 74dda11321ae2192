"""Ranks by torchrun: one word of the command line, or what AWS's SDK sends."""

from pathlib import Path

import pytest

from spotproof.container.config import parse_config
from spotproof.container.launcher import is_torchrun_asked, launch_by_torchrun, split_torchrun
from spotproof.container.program import Command
from spotproof.errors import SpecError

COMMAND = Command(program="train.py", argv=["py", "train.py", "--lr", "1"], directory=Path("/opt/ml/code"))


def launch(*, hosts=("algo-1", "algo-2"), options=(), inherited=None, command=COMMAND, num_gpus=0):
    config = parse_config(
        hyperparameters={}, channels={}, resources={"hosts": list(hosts), "current_host": "algo-1"}, checkpoints={}
    )
    environment = {"RANK": "0", "MASTER_ADDR": "algo-1", "NODE_RANK": "0", "OWN": "1", **(inherited or {})}
    return launch_by_torchrun(
        command,
        list(options),
        config,
        num_gpus=num_gpus,
        python="py",
        environment=environment,
        inherited=inherited or {},
    )


def test_the_word_is_split_off():
    """torchrun, its options of one word each, the program, the program's own arguments."""
    assert split_torchrun("train.py", ["--a"]) == (False, [], "train.py", ["--a"])
    assert split_torchrun(None, []) == (False, [], None, [])
    assert split_torchrun("torchrun", []) == (True, [], None, [])
    assert split_torchrun("torchrun", ["--nproc-per-node=2", "train.py", "--a"]) == (
        True,
        ["--nproc-per-node=2"],
        "train.py",
        ["--a"],
    )


@pytest.mark.parametrize(("value", "is_asked"), [("true", True), ("false", False), ('"true"', False), (None, False)])
def test_the_sdks_word_for_it(value, is_asked):
    """The hyperparameter of the SDK's torch_distributed, JSON-encoded as it sends it."""
    given = {} if value is None else {"sagemaker_torch_distributed_enabled": value}
    assert is_torchrun_asked(given) is is_asked


def test_the_agents_meet_on_the_first_host():
    """All hosts name the same place and job; the plain wiring's numbers are not there to contradict the agent's."""
    command, environment = launch(inherited={"TRAINING_JOB_NAME": "j-1"}, options=["--nproc-per-node=3"])

    assert command.argv == [
        *("py", "-m", "spotproof.container.elastic", "--nnodes=2", "--nproc-per-node=1"),
        *("--rdzv-backend=c10d", "--rdzv-endpoint=algo-1:29400", "--rdzv-id=j-1", "--nproc-per-node=3"),
        *("train.py", "--lr", "1"),
    ]
    assert environment == {"OWN": "1", "TRAINING_JOB_NAME": "j-1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120"}
    assert command.directory == COMMAND.directory


def test_where_names_resolve_nowhere_the_platform_says_where():
    """Plain processes are given an address and a port that is free."""
    command, _ = launch(inherited={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4321"}, num_gpus=2)

    assert "--rdzv-endpoint=127.0.0.1:4321" in command.argv
    assert "--nproc-per-node=2" in command.argv


def test_one_host_needs_no_meeting():
    """A single host's agent finds a port by itself."""
    command, _ = launch(hosts=["algo-1"])

    assert command.argv[3:6] == ["--nnodes=1", "--nproc-per-node=1", "--standalone"]


def test_only_python_files():
    """torchrun would run anything else with Python."""
    with pytest.raises(SpecError, match=r"run.sh.*\.py"):
        launch(command=Command(program="run.sh", argv=["/bin/sh", "run.sh"], directory=Path("/")))
