"""A loader resumed at any batch hands out what the plain loader would have, random numbers included."""

import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from spotproof.checkpoint.order import can_be_resumed, resumable_loader
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.tree import TreeEncoder, decode_tree

EPOCHS = 3


class Noisy(Dataset):
    """Samples with noise from all three generators."""

    def __init__(self, size=37):
        self.size = size
        self.fetched = 0

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.fetched += 1
        return torch.tensor([index, torch.rand(()).item(), np.random.rand(), random.random()], dtype=torch.float64)


class Batched(Noisy):
    """Fetches a whole batch at once, and never an empty one."""

    def __getitems__(self, indices):
        assert indices
        return [self[index] for index in indices]


class OwnGenerators(Noisy):
    """Draws its noise from generators of its own and of its transforms."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(5)
        self.transforms = [random.Random(6), {"torch": torch.Generator().manual_seed(7)}, np.random.RandomState(8)]

    def __getitem__(self, index):
        python, of_torch, legacy = self.transforms
        noise = [self.rng.random(), python.random(), torch.rand((), generator=of_torch["torch"]).item(), legacy.rand()]
        return torch.tensor([index, *noise], dtype=torch.float64)


class OwnGenerator(Sampler):
    """Keeps a generator of its own, and counts its passes."""

    def __init__(self, size):
        self.size, self.rng, self.passes = size, np.random.default_rng(3), 0

    def __len__(self):
        return self.size

    def __iter__(self):
        self.passes += 1
        return iter([*self.rng.permutation(self.size).tolist()[self.passes :], *range(self.passes)])


class FromTheClock(Sampler):
    """Can't be drawn again."""

    def __len__(self):
        return 37

    def __iter__(self):
        return iter(random.SystemRandom().sample(range(37), 37))


MAKERS = {
    "shuffle": lambda **o: DataLoader(Noisy(), batch_size=4, shuffle=True, **o),
    "generator": lambda **o: DataLoader(
        Noisy(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3), **o
    ),
    "weighted": lambda **o: DataLoader(Noisy(), batch_size=4, sampler=WeightedRandomSampler([1.0] * 37, 37), **o),
    "unbatched": lambda **o: DataLoader(Noisy(9), batch_size=None, shuffle=True, **o),
    "replacement": lambda **o: DataLoader(
        Noisy(), batch_size=4, sampler=RandomSampler(Noisy(), replacement=True, num_samples=50), **o
    ),
    "whole batches": lambda **o: DataLoader(Batched(), batch_size=4, shuffle=True, **o),
    "dataset with generators": lambda **o: DataLoader(
        torch.utils.data.Subset(OwnGenerators(), range(36)), batch_size=4, shuffle=True, **o
    ),
    "own generator": lambda **o: DataLoader(Noisy(), batch_size=4, sampler=OwnGenerator(37), **o),
}


def run(loader, *, start=None, stop=None):
    """Return the batches, mixed with draws of the main process, of EPOCHS passes or up to *stop* batches."""
    epoch, count, rng = start or (0, 0, None)
    seen = []
    for number in range(epoch, EPOCHS):
        batches = iter(loader)
        if rng is not None:
            unpack_rng(rng)
            rng = None
        if count == stop:
            return seen, (number, count, pack_rng())
        for batch in batches:
            seen += [batch, torch.rand(2)]
            count += 1
            if count == stop:
                return seen, (number, count, pack_rng())
    return seen, None


def seed(value):
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def stored(state):
    """Return a loader's state after the way through a checkpoint."""
    encoder = TreeEncoder()
    data = json.loads(json.dumps(encoder.encode(state, "loader")))
    return decode_tree(data, [tensor.clone() for _, tensor in encoder.tensors])


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_resumed_at_any_batch(make, workers):
    """Stock loader, wrapped loader, and wrapped loader resumed at a batch give the same batches."""
    seed(1)
    stock, _ = run(make(**workers))
    for stop in (0, 3, 12) if workers else (0, 1, 3, 9, 12):
        seed(1)
        loader = resumable_loader(make(**workers))
        before, where = run(loader, stop=stop)
        state = stored(loader.state_dict())

        seed(99)  # the new process starts elsewhere
        resumed = resumable_loader(make(**workers), on_mismatch=pytest.fail)
        resumed.load_state_dict(state)
        after, _ = run(resumed, start=where)

        assert len(before + after) == len(stock)
        assert all(map(torch.equal, before + after, stock))


def test_no_sample_is_fetched_to_be_skipped():
    """A resume near the end of a pass fetches only what is left."""
    loader = resumable_loader(DataLoader(Noisy(4000), batch_size=4, shuffle=True))
    batches = iter(loader)
    for _ in range(990):
        next(batches)
    data = Noisy(4000)
    resumed = resumable_loader(DataLoader(data, batch_size=4, shuffle=True))
    resumed.load_state_dict(loader.state_dict())
    assert len(list(resumed)) == 10
    assert data.fetched == 40


def test_an_order_that_can_not_be_drawn_again_is_said():
    """With the sampler's name and a remedy; training goes on with what it draws now."""
    make = lambda: DataLoader(Noisy(), batch_size=4, sampler=FromTheClock())  # noqa: E731
    loader = resumable_loader(make())
    batches = iter(loader)
    next(batches)
    said = []
    resumed = resumable_loader(make(), on_mismatch=said.append)
    resumed.load_state_dict(loader.state_dict())
    assert len(list(resumed)) == 9
    assert len(said) == 1
    assert "FromTheClock" in said[0]
    assert "state_dict" in said[0]


def test_the_wrapped_loader_is_still_a_loader_of_its_kind():
    """isinstance, length, dataset and sampler are the plain loader's."""

    class Mine(DataLoader):
        pass

    plain = Mine(Noisy(), batch_size=4, shuffle=True)
    wrapped = resumable_loader(plain)
    assert isinstance(wrapped, Mine)
    assert (len(wrapped), wrapped.dataset, wrapped.sampler) == (len(plain), plain.dataset, plain.sampler)
    assert can_be_resumed(plain)
    assert not can_be_resumed(wrapped)
    assert not can_be_resumed([1, 2])
