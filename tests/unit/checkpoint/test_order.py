"""A loader resumed at any batch hands out what the plain loader would have, random numbers included."""

import json
import random

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from spotproof.checkpoint.resumable import resumable_loader
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.seek import seek
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


class EagerBatches(Sampler):
    """Draws its order as soon as it is asked for an iterator: from the global generators and from one of its own."""

    def __init__(self):
        self.rng = np.random.default_rng(3)

    def __len__(self):
        return 10

    def __iter__(self):
        order = torch.randperm(37)[self.rng.permutation(37)].tolist()
        return iter([order[start : start + 4] for start in range(0, 37, 4)])


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
    "replacement, one generator for all": lambda **o: (
        lambda generator: DataLoader(
            Noisy(),
            batch_size=4,
            sampler=RandomSampler(Noisy(), replacement=True, num_samples=50, generator=generator),
            generator=generator,
            **o,
        )
    )(torch.Generator().manual_seed(5)),
    "whole batches": lambda **o: DataLoader(Batched(), batch_size=4, shuffle=True, **o),
    "dataset with generators": lambda **o: DataLoader(
        torch.utils.data.Subset(OwnGenerators(), range(36)), batch_size=4, shuffle=True, **o
    ),
    "own generator": lambda **o: DataLoader(Noisy(), batch_size=4, sampler=OwnGenerator(37), **o),
    "eager": lambda **o: DataLoader(Noisy(), batch_sampler=EagerBatches(), **o),
}

WITH_WORKERS = ("generator", "unbatched", "dataset with generators", "own generator")
"""Always run with workers, too; the others in the long run only."""


def run(loader, *, start=None, stop=None):
    """Return the batches, mixed with draws of the main process, of EPOCHS passes or up to *stop* batches.

    If *stop* is (number of a pass, batches before it), stop when that pass has begun and nothing of it was fetched.
    """
    epoch, count, rng = start or (0, 0, None)
    seen = []
    for number in range(epoch, EPOCHS):
        batches = iter(loader)
        if rng is not None:
            unpack_rng(rng)
            rng = None
        if stop in (count, (number, count)):
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


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        pytest.param(name, workers, marks=pytest.mark.slow if workers and name not in WITH_WORKERS else ())
        for name in MAKERS
        for workers in ({}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True})
    ],
    ids=str,
)
def test_resumed_at_any_batch(name, workers):
    """Stock loader, wrapped loader, and wrapped loader resumed at a batch give the same batches."""
    make = MAKERS[name]
    seed(1)
    stock, _ = run(make(**workers))
    second = (1, 9 if len(stock) == 2 * 9 * EPOCHS else 13 if len(stock) == 2 * 13 * EPOCHS else 10)
    for stop in (0, 3, second, 12) if workers else (0, 1, 3, 9, second, 12):
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own generator", "eager"])
def test_workers_that_are_not_forked(name):
    """What goes along with batches, and comes back to workers, does so by pickle, too."""
    options = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "forkserver"}
    seed(1)
    stock, _ = run(MAKERS[name](**options))
    seed(1)
    loader = resumable_loader(MAKERS[name](**options))
    before, where = run(loader, stop=12)
    state = stored(loader.state_dict())
    seed(99)
    resumed = resumable_loader(MAKERS[name](**options), on_mismatch=pytest.fail)
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
    assert resumable_loader(wrapped) is wrapped


SAMPLERS = {
    "shuffled": lambda g: RandomSampler(range(100), generator=g),
    "some": lambda g: RandomSampler(range(100), num_samples=70, generator=g),
    "replacement": lambda g: RandomSampler(range(100), replacement=True, num_samples=100, generator=g),
    "weighted": lambda g: WeightedRandomSampler([1.0, 2.0] * 50, 100, generator=g),
    "batches": lambda g: torch.utils.data.BatchSampler(
        RandomSampler(range(100), replacement=True, num_samples=97, generator=g), 6, drop_last=False
    ),
}


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_what_is_sought_is_what_would_have_been_drawn(make):
    """The rest of the order, the indices before it, and the generator after each draw but those drawn ahead."""
    stock, end = list(make(torch.Generator().manual_seed(5))), torch.Generator().manual_seed(5)
    for _ in make(end):
        pass
    for skipped in (0, 1, 5, len(stock) - 1, len(stock)):
        generator = torch.Generator().manual_seed(5)
        rest, before = seek(make(generator), skipped)
        flat = [index for item in stock[:skipped] for index in (item if isinstance(item, list) else [item])]
        assert before.cast("q").tolist() == flat
        assert list(rest) == stock[skipped:]
        assert torch.equal(generator.get_state(), end.get_state())


def test_a_sampler_that_lightning_shares_out_goes_on():
    """With several ranks Lightning wraps a sampler of the user's: its own generator is found in the wrapper."""

    def make():
        sampler = DistributedSamplerWrapper(OwnGenerator(24), num_replicas=2, rank=1, shuffle=False)
        return resumable_loader(DataLoader(Noisy(24), sampler=sampler, batch_size=3))

    undisturbed = make()
    list(undisturbed)
    batches, state = [], None
    for number, batch in enumerate(undisturbed):
        if number == 1:
            state, rng = undisturbed.state_dict(), pack_rng()
        if number > 1:
            batches.append(batch)
    batches += list(undisturbed)

    resumed = make()
    resumed.load_state_dict(state)
    iterator = iter(resumed)
    unpack_rng(rng)

    rest = [*iterator, *resumed]
    assert len(rest) == len(batches) == 6
    assert all(torch.equal(one, other) for one, other in zip(rest, batches, strict=True))
