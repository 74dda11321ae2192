"""What several processes can't do is refused before anything is trained."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from spotproof.errors import SpecError
from spotproof.lightning import _private as private


def test_a_sharded_model_is_refused():
    """FSDP: the words name it, and say what to use instead."""
    with pytest.raises(SpecError, match=r"FSDPStrategy and 2 processes.*ddp"):
        private.refuse_strategy(SimpleNamespace(world_size=2, strategy=FSDPStrategy()))


def test_spawned_processes_are_refused():
    """They could not be told from the process they are copies of."""
    strategy = DDPStrategy(start_method="spawn")
    from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    strategy._launcher = _MultiProcessingLauncher(strategy, start_method="spawn")
    with pytest.raises(SpecError, match="ddp_spawn"):
        private.refuse_strategy(SimpleNamespace(world_size=2, strategy=strategy))


def test_one_process_may_use_anything():
    """As ever: one process holds the whole model."""
    private.refuse_strategy(SimpleNamespace(world_size=1, strategy=FSDPStrategy()))
    private.refuse_strategy(SimpleNamespace(world_size=2, strategy=DDPStrategy()))
