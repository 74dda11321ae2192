"""Which rank a process will be, before there is a process group."""

import pytest

from spotproof.checkpoint.ranks import guess_rank


@pytest.mark.parametrize(
    ("env", "rank"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, 1),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, 1),
        ({"NODE_RANK": "1", "WORLD_SIZE": "2"}, 1),
        ({"SLURM_PROCID": "5", "SLURM_LOCALID": "1"}, 5),
        ({"RANK": "x"}, 0),
    ],
)
def test_launchers_say_it(env, rank):
    """torchrun, Lightning's own launcher, one process a host as on SageMaker, and Slurm."""
    assert guess_rank(env) == rank
