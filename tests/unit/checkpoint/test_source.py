"""What a loader reads with comes back: generators wherever they are bound, and what training changes in data sets."""

import functools
import random

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, WeightedRandomSampler

from spotproof.checkpoint.resumable import resumable_loader
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.source import Source

ALONE = np.random.default_rng(3)
LISTED = {"some": random.Random(4)}


class Data(Dataset):
    def __init__(self):
        self.epoch, self.fetched, self.name = 0, 0, "first"
        self.labels, self.weights = np.arange(4), torch.ones(3)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.fetched += 1
        return index * (self.epoch + 1)


def test_what_training_changes_comes_back_and_what_the_user_edits_stays():
    """Through what wraps the data set, arrays in place."""
    data = Data()
    source = Source(ConcatDataset([Subset(data, range(3))]))
    data.epoch = 3
    data.labels[2] = 7
    data.weights *= 2
    packed = source.pack()

    again = Data()
    again.name = "second"
    labels, source = again.labels, Source(ConcatDataset([Subset(again, range(3))]))
    source.load(packed)

    assert (again.epoch, again.name) == (3, "second")
    assert labels.tolist() == [0, 1, 7, 3]
    assert again.weights.tolist() == [2, 2, 2]


def test_what_a_data_set_counts_of_its_own_begins_anew():
    """A count of what was fetched is one of this process; the epoch that it was told is not."""

    def begun(data):
        return resumable_loader(DataLoader(data, batch_size=2))

    data = Data()
    loader = begun(data)
    data.epoch = 2
    batches = iter(loader)
    read = [next(batches).tolist() for _ in range(2)]
    again = Data()
    resumed = begun(again)
    resumed.load_state_dict(loader.state_dict())

    assert read + [batch.tolist() for batch in resumed] == [[0, 3], [6, 9], [12, 15], [18, 21], [24, 27], [30, 33]]
    assert again.fetched == 8


class Augments:
    __slots__ = ("rng",)

    def __init__(self, rng):
        self.rng = rng

    def __call__(self, items):
        return self.rng.random()


def test_generators_are_found_where_functions_bind_them():
    """In a closure, a default, a partial function, the object of a method, and slots."""

    def closed_over(rng):
        return lambda items: rng.random()

    def with_default(rng):
        def collate(items, rng=rng):
            return rng.random()

        return collate

    def called_with(rng, items):
        return rng.random()

    kinds = (closed_over, with_default, lambda rng: functools.partial(called_with, rng), Augments)
    for bind in (*kinds, lambda rng: Augments(rng).__call__):
        collate = bind(np.random.default_rng(1))
        collate([])
        packed = Source(None, collate).pack()
        again = bind(np.random.default_rng(1))
        assert Source(None, again).load(packed) == ""
        assert again([]) == collate([])


def test_a_generator_that_is_not_there_yet_is_named():
    """It can't be set before what owns it is made."""
    data = Data()
    data.augments = Augments(random.Random(1))
    packed = Source(data).pack()

    assert "its generator dataset.augments.rng is not there yet" in Source(Data()).load(packed)


def test_generators_of_the_users_modules_are_part_of_the_random_numbers():
    """By themselves, or in a dict or list."""
    packed = pack_rng()
    drawn = ALONE.random(), LISTED["some"].random(), torch.rand(1).item()
    unpack_rng(packed)

    assert drawn == (ALONE.random(), LISTED["some"].random(), torch.rand(1).item())


def test_weights_that_training_changes_come_back():
    """The order is drawn again with those of then, and the next pass is drawn with those of now."""

    def begun():
        torch.manual_seed(1)
        return resumable_loader(DataLoader(range(8), batch_size=2, sampler=WeightedRandomSampler(torch.ones(8), 8)))

    loader = begun()
    batches = iter(loader)
    next(batches)
    loader.sampler.weights[:5] = 0
    state = loader.state_dict()
    rest = [batch.tolist() for batch in batches]
    torch.manual_seed(2)
    following = [batch.tolist() for batch in loader]
    said = []
    resumed = begun()
    resumed._on_mismatch = resumed._order._on_mismatch = said.append
    resumed.load_state_dict(state)

    assert [batch.tolist() for batch in resumed] == rest
    torch.manual_seed(2)
    assert [batch.tolist() for batch in resumed] == following
    assert said == []
    assert min(min(batch) for batch in following) >= 5
