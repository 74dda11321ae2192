"""How long does it take to find the place in the data again, near the end of a pass over a million samples?

    python benchmarks/seek.py [--quick] [--json FILE] [--samples 1000000] [--rounds 5]

A loader's position is saved one batch before the end. A new loader goes on from it; timed is from ``load_state_dict``
to the first batch in hand, beside a fresh loader's first batch of the same kind, which draws its order, too. Also timed
is what the position costs in each save.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from common import Goal, Result, add_options, finish
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from spotproof.checkpoint.resumable import resumable_loader, settings_state

BATCH = 100


class Numbers(Dataset[int]):
    """A sample is its index."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class Shuffled(Sampler[int]):
    """A sampler of a user's own, with a list of indices that it shuffles in place."""

    def __init__(self, length: int) -> None:
        self.indices = list(range(length))

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.indices)).tolist()
        return iter([self.indices[place] for place in order])


def kinds(length: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the ways to say in which order, as arguments of a DataLoader."""
    weights = torch.rand(length, generator=torch.Generator().manual_seed(0))

    def own() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    return {
        "shuffle=True": lambda: {"shuffle": True},
        "shuffle=True, own generator": lambda: {"shuffle": True, "generator": own()},
        "WeightedRandomSampler": lambda: {"sampler": WeightedRandomSampler(weights, length, generator=own())},
        "replacement=True": lambda: {
            "sampler": RandomSampler(Numbers(length), replacement=True, num_samples=length, generator=own())
        },
        "a sampler of the user's own": lambda: {"sampler": Shuffled(length)},
    }


def measure(options: Callable[[], dict[str, Any]], length: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of each thing timed."""
    data = Numbers(length)

    def loader() -> Any:
        return DataLoader(data, batch_size=BATCH, collate_fn=torch.tensor, **options())

    torch.manual_seed(1)
    first = resumable_loader(loader())
    batches = iter(first)
    for _ in range(length // BATCH - 1):
        next(batches)
    state = first.state_dict()
    last = next(batches)
    seconds: dict[str, list[float]] = {"seek": [], "fresh": [], "save": [], "settings": []}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        got = action()
        seconds[name].append(time.perf_counter() - began)
        return got

    for _ in range(rounds):
        said: list[str] = []
        resumed, other, plain = resumable_loader(loader(), said.append), resumable_loader(loader()), loader()

        def seek(resumed: Any = resumed) -> Any:
            resumed.load_state_dict(state)
            return next(iter(resumed))

        got = timed("seek", seek)
        assert torch.equal(got, last)
        assert not said, said
        timed("fresh", lambda other=other: next(iter(other)))
        timed("save", resumed.state_dict)
        timed("settings", lambda plain=plain: settings_state(plain))
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    length = args.samples or (10**5 if args.quick else 10**6)
    rows, goals = [], []
    for name, options in kinds(length).items():
        found = measure(options, length, args.rounds)
        rows.append([name, *(f"{found[key] * 1000:.1f} ms" for key in ("seek", "fresh", "save", "settings"))])
        beyond = 1000 * (found["seek"] - found["fresh"])
        goals.append(
            Goal(what=f"seek beyond a fresh first batch: {name}", measured=beyond, limit=50, unit="ms", digits=0)
        )
    result = Result(
        "seek",
        "Back to a place in the data",
        f"the last of {length // BATCH} batches of {BATCH}, no workers, medians of {args.rounds}",
        ["", "seek", "fresh first batch", "position in a save", "settings in a save"],
        rows,
        goals,
    )
    finish(result, args.json)


if __name__ == "__main__":
    main()
