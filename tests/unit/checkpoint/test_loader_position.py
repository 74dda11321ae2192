"""Where a loop of one's own stands in its loader: within a pass, at its end, and between two passes; Fabric's, too."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from spotproof.checkpoint import Checkpointer, resumable_loader
from spotproof.checkpoint.position import LoaderPosition
from spotproof.errors import SpecError


class Numbers(Dataset):
    """Indices, each with noise."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index + torch.rand(()) / 2


class Stream(IterableDataset):
    """The same without a position."""

    def __iter__(self):
        return (Numbers()[index] for index in range(12))


def plain(workers):
    return DataLoader(Numbers(), batch_size=3, shuffle=True, num_workers=workers)


def of_fabric(workers):
    return L.Fabric(accelerator="cpu", devices=1).setup_dataloaders(plain(workers))


def with_epochs(workers):
    """Fabric tells this sampler the number of the pass, of which its order depends."""
    loader = DataLoader(Numbers(), batch_size=3, sampler=DistributedSampler(Numbers(), 1, 0), num_workers=workers)
    return L.Fabric(accelerator="cpu", devices=1).setup_dataloaders(loader, use_distributed_sampler=False)


def streamed(workers):
    return DataLoader(Stream(), batch_size=3, num_workers=workers)


KINDS = {"plain": plain, "of_fabric": of_fabric, "with_epochs": with_epochs, "streamed": streamed}


def read(make, workers, passes=3, stop_at=None, state=None):
    """Read passes to their end, or stop at a (pass, batch); return what was read, and the state there."""
    torch.manual_seed(1)
    loader = resumable_loader(make(workers))
    position, found, first = LoaderPosition(loader), [], 0
    if state is not None:
        first, saved, rng = state
        position.load_state_dict(saved)
        torch.set_rng_state(rng)
    for number in range(first, passes):
        for index, batch in enumerate(loader):
            found.append(batch.tolist())
            if (number, index) == stop_at:
                return found, (number, position.state_dict(), torch.get_rng_state())
        if (number, "end") == stop_at:
            return found, (number + 1, position.state_dict(), torch.get_rng_state())
    return found, None


@pytest.mark.parametrize("stop_at", [(0, 0), (1, 1), (1, 3), (0, "end"), (1, "end")], ids=str)
@pytest.mark.parametrize(("kind", "workers"), [*((kind, 0) for kind in KINDS), ("plain", 2), ("with_epochs", 2)])
def test_it_goes_on_where_it_stood(kind, workers, stop_at):
    """Also after the last batch of a pass, whose end the loop has seen or has not: no pass is left out or doubled."""
    whole, _ = read(KINDS[kind], workers)
    first, state = read(KINDS[kind], workers, stop_at=stop_at)
    rest, _ = read(KINDS[kind], workers, state=state)

    assert first + rest == whole


@pytest.mark.parametrize("stop_at", [(1, 1), (1, "end")], ids=str)
def test_a_position_that_was_loaded_can_be_saved_again(stop_at):
    """Before the next pass began: it is still the same."""
    _, state = read(plain, 0, stop_at=stop_at)
    position = LoaderPosition(resumable_loader(plain(0)))
    position.load_state_dict(state[1])

    assert position.state_dict() == state[1]


def test_fabric_may_come_last(tmp_path):
    """Wrapped by Fabric afterwards, the resumable loader in it has the position; wrapping again takes that one."""
    inner = resumable_loader(plain(0))
    outer = L.Fabric(accelerator="cpu", devices=1).setup_dataloaders(inner)

    assert resumable_loader(outer)._dataloader is inner


@pytest.mark.parametrize("make", [plain, of_fabric])
def test_a_loader_without_a_position_is_refused(tmp_path, make):
    """At once, and with what to do."""
    with pytest.raises(SpecError, match=r"'loader' can't be saved.*Register resumable_loader"):
        Checkpointer(tmp_path).register("loader", make(0))
