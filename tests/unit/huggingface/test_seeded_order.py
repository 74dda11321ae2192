"""A seek in the order of accelerate's sampler, which seeds a generator anew for each pass, draws one permutation."""

from itertools import chain

import pytest
import torch

pytest.importorskip("accelerate")

from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import BatchSampler

from spotproof.checkpoint.seek import seek


def make(num_samples=None):
    torch.manual_seed(5)
    sampler = SeedableRandomSampler(range(50), num_samples=num_samples)
    sampler.set_epoch(3)
    return sampler, BatchSampler(sampler, 4, drop_last=False)


@pytest.mark.parametrize("num_samples", [None, 30])
@pytest.mark.parametrize("num_draws", [0, 1, 7])
def test_it_goes_on_in_the_sampler_s_order(num_draws, num_samples):
    """The rest of this pass, and the next one, are what the sampler yields."""
    sampler, batches = make(num_samples)
    whole, following = list(batches), list(batches)
    sought_sampler, sought_batches = make(num_samples)
    rest, skipped = seek(sought_batches, num_draws)

    assert list(rest) == whole[num_draws:]
    assert bytes(skipped) == torch.tensor([*chain(*whole[:num_draws])], dtype=torch.int64).numpy().tobytes()
    assert list(sought_batches) == following
    assert torch.equal(sought_sampler.generator.get_state(), sampler.generator.get_state())
