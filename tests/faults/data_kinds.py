"""Training data of every make: what the fault tests train on, and what a resume must find its place in."""

import random

import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

NUM_SAMPLES = 44


def sample(index, rng=None):
    """Return sample *index* with noise from the global generators, and from *rng*."""
    noise = torch.randn(8) * 0.1 + np.random.rand() * 0.1 + random.random() * 0.1
    if rng is not None:
        noise = noise + rng.random() * 0.1
    return {"id": index, "x": torch.sin(torch.arange(8.0) * (index + 1)) + noise, "y": index % 3}


def share():
    """Return this worker's number, and how many there are."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info is not None else (0, 1)


class Samples(Dataset):
    """Map-style."""

    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        return sample(index)


class Stateful(IterableDataset):
    """Goes through its samples in an order that changes with each epoch, and knows where it is."""

    def __init__(self, size=NUM_SAMPLES):
        self.size, self.epoch, self.position, self.resumed_at = size, 0, 0, None
        self.rng = np.random.default_rng(4)

    def __iter__(self):
        start, self.resumed_at = self.resumed_at or 0, None
        worker, num_workers = share()
        order = np.random.default_rng(self.epoch).permutation(self.size)[worker::num_workers]
        for self.position in range(start + 1, len(order) + 1):
            yield sample(int(order[self.position - 1]), self.rng)
        self.epoch += 1
        self.position = 0

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]
        self.resumed_at = self.position


class Sized(Stateful):
    """The same, with a length."""

    def __len__(self):
        return self.size


class Uneven(Stateful):
    """The first worker has more than the others."""

    def __iter__(self):
        worker, _ = share()
        numbers = range(self.position, NUM_SAMPLES if worker == 0 else 12)
        for index in numbers:
            self.position = index + 1
            yield sample(index + 100 * worker)
        self.position = 0


class Endless(IterableDataset):
    """Goes on where it was, whichever epoch begins."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        worker, num_workers = share()
        while True:
            self.position += 1
            yield sample((self.position * num_workers + worker) * 7 % 1009)

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class _Iterator:
    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        worker, num_workers = share()
        index = self.position * num_workers + worker
        if index >= NUM_SAMPLES:
            raise StopIteration
        self.position += 1
        return sample(index)

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Itself(_Iterator, IterableDataset):
    """Is its own iterator, which begins anew when asked for one."""

    def __iter__(self):
        self.position = 0
        return self


class WithIterator(IterableDataset):
    """Keeps its position in the iterator."""

    def __iter__(self):
        return _Iterator()


class Stateless(IterableDataset):
    """Shuffles through a buffer with a generator of its own, and does not know where it is."""

    def __init__(self):
        self.rng = random.Random(5)

    def __iter__(self):
        worker, num_workers = share()
        buffer = []
        for index in range(worker, NUM_SAMPLES, num_workers):
            buffer.append(index)
            if len(buffer) == 6:
                yield sample(buffer.pop(self.rng.randrange(6)))
        while buffer:
            yield sample(buffer.pop(self.rng.randrange(len(buffer))))


class UnsizedBatches(Sampler):
    """Batches of changing sizes; nobody knows how many."""

    def __init__(self):
        self.rng = random.Random(6)

    def __iter__(self):
        order = torch.randperm(NUM_SAMPLES).tolist()
        while order:
            size = self.rng.randint(2, 5)
            yield order[:size]
            order = order[size:]


class Loader:
    """A loader that is not torch's."""

    def __init__(self, batch_size=4):
        self.batch_size, self.position, self.order, self.resumed = batch_size, 0, [], False

    def __iter__(self):
        if not self.resumed:
            self.order, self.position = torch.randperm(NUM_SAMPLES).tolist(), 0
        self.resumed = False
        while self.position < NUM_SAMPLES:
            indices = self.order[self.position : self.position + self.batch_size]
            self.position += self.batch_size
            yield torch.utils.data.default_collate([sample(index) for index in indices])

    def state_dict(self):
        return {"position": self.position, "order": list(self.order)}

    def load_state_dict(self, state):
        self.position, self.order, self.resumed = state["position"], list(state["order"]), True


class Batches:
    """Batches that were made before, in the order of a generator."""

    def __iter__(self):
        for start in torch.randperm(11).tolist():
            yield torch.utils.data.default_collate([sample(index) for index in range(start * 4, start * 4 + 4)])


def _of_torchdata(dataset, **options):
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(dataset, **options)


MAKERS = {
    "stateful": lambda **o: DataLoader(Stateful(), batch_size=4, **o),
    "stateful_dropping": lambda **o: DataLoader(Stateful(45), batch_size=4, drop_last=True, **o),
    "stateful_unbatched": lambda **o: DataLoader(
        Stateful(), batch_size=None, collate_fn=lambda item: torch.utils.data.default_collate([item, item]), **o
    ),
    "sized": lambda **o: DataLoader(Sized(), batch_size=4, **o),
    "uneven": lambda **o: DataLoader(Uneven(), batch_size=4, **o),
    "endless": lambda **o: DataLoader(Endless(), batch_size=4, **o),
    "itself": lambda **o: DataLoader(Itself(), batch_size=4, **o),
    "with_iterator": lambda **o: DataLoader(WithIterator(), batch_size=4, **o),
    "stateless": lambda **o: DataLoader(Stateless(), batch_size=4, **o),
    "unsized_batches": lambda **o: DataLoader(Samples(), batch_sampler=UnsizedBatches(), **o),
    "torchdata": lambda **o: _of_torchdata(Samples(), batch_size=4, shuffle=True, **o),
    "torchdata_stream": lambda **o: _of_torchdata(Stateful(), batch_size=4, **o),
    "loader": lambda **_: Loader(),
    "batches": lambda **_: Batches(),
    "cycled": lambda **o: CombinedLoader(
        {"a": DataLoader(Stateful(), batch_size=4, **o), "b": DataLoader(Stateful(12), batch_size=3, **o)},
        "max_size_cycle",
    ),
    "shortest": lambda **o: CombinedLoader(
        {"a": DataLoader(Stateful(), batch_size=4, **o), "b": DataLoader(Samples(), batch_size=5, shuffle=True, **o)},
        "min_size",
    ),
    "own_generator": lambda **o: DataLoader(
        Samples(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(1), **o
    ),
}


WITHOUT_WORKERS = ("loader", "batches")
"""Kinds that are not torch's loaders."""


def make(name, *, workers=0, persistent=False, start_method=None):
    """Return the training loader of that *name*."""
    options = {"num_workers": workers, "persistent_workers": persistent} if workers else {}
    if start_method:
        options["multiprocessing_context"] = start_method
    return MAKERS[name](**options)
