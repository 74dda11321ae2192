"""Generators that a program neither seeds nor draws from are no difference of the model; those it trains with are."""

import random
import sys

import numpy as np
import pytest
import torch

from spotproof.checkpoint import Checkpointer, newest_verified
from spotproof.checkpoint.compare import find_differences
from spotproof.checkpoint.packed_rng import split_rng
from spotproof.checkpoint.rng import RngState, pack_rng, unpack_rng
from spotproof.rehearsal.compare import compare_checkpoints
from spotproof.storage import LocalStorage


@pytest.fixture(autouse=True)
def same_generators():
    """The tests set all generators; put them back."""
    before = pack_rng()
    yield
    unpack_rng(before)


def saved(folder, *, seeds, weight=1.0):
    """Save a model of one weight, all generators seeded as *seeds* says: of torch, numpy and random."""
    for seed_it, seed in zip((torch.manual_seed, np.random.seed, random.seed), seeds, strict=True):
        seed_it(seed)
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, weight)
    torch.nn.init.constant_(layer.bias, 0.0)
    checkpointer = Checkpointer(folder)
    checkpointer.register("model", layer)
    checkpointer.register("rng", RngState())
    checkpointer.save(1, wait=True)
    checkpointer.close()
    return LocalStorage(folder)


@pytest.mark.parametrize(
    ("seeds", "names"), [((1, 2, 3), "numpy and random"), ((1, 1, 3), "random"), ((1, 2, 1), "numpy")]
)
def test_unseeded_generators_are_noted_and_nothing_more(tmp_path, seeds, names):
    """torch alone is seeded: the same model, with a note that names what is not seeded."""
    verdict = compare_checkpoints(saved(tmp_path / "a", seeds=(1, 1, 1)), saved(tmp_path / "b", seeds=seeds))

    assert verdict is not None
    assert verdict.is_identical
    assert f"The generators of {names} ended in other states" in verdict.note


def test_unseeded_generators_of_ones_own_modules_are_noted(tmp_path, monkeypatch):
    """A module that holds a generator, as many a helper does, and never draws from it."""
    monkeypatch.setattr(sys.modules[__name__], "OF_THIS_MODULE", random.Random(1), raising=False)
    a = saved(tmp_path / "a", seeds=(1, 1, 1))
    OF_THIS_MODULE.seed(2)  # noqa: F821
    verdict = compare_checkpoints(a, saved(tmp_path / "b", seeds=(1, 1, 1)))

    assert verdict is not None
    assert verdict.is_identical
    assert "The generators of your modules ended in other states" in verdict.note


def test_equal_ends_have_no_note(tmp_path):
    """Everything is seeded."""
    verdict = compare_checkpoints(saved(tmp_path / "a", seeds=(1, 1, 1)), saved(tmp_path / "b", seeds=(1, 1, 1)))

    assert verdict is not None
    assert verdict.is_identical
    assert verdict.note == ""


def test_torch_generator_is_a_difference_and_is_named(tmp_path):
    """What torch would draw next is part of the model's training, whatever else is not seeded."""
    a, b = saved(tmp_path / "a", seeds=(1, 1, 1)), saved(tmp_path / "b", seeds=(2, 1, 9))
    verdict = compare_checkpoints(a, b)

    assert verdict is not None
    assert not verdict.is_identical
    assert (verdict.where, verdict.detail) == ("rng/cpu", "other state of torch and of random")


def test_another_weight_is_the_difference_though_generators_differ_too(tmp_path):
    """An unseeded generator excuses nothing else."""
    a, b = saved(tmp_path / "a", seeds=(1, 1, 1)), saved(tmp_path / "b", seeds=(1, 2, 3), weight=2.0)
    verdict = compare_checkpoints(a, b)

    assert verdict is not None
    assert not verdict.is_identical
    assert verdict.where == "model/weight"
    found = list(find_differences(newest_verified(a), a, newest_verified(b), b))
    assert [(item.where, item.generators) for item in found] == [
        ("model/weight", ()),
        ("rng/cpu", ("numpy", "random")),
    ]


def test_bytes_that_are_no_generators_are_left_alone():
    """A state of any other length is not taken apart, and is refused where it would be loaded."""
    packed = pack_rng()
    parts = split_rng(packed)
    assert parts is not None
    assert len(parts.torch) == len(torch.get_rng_state())
    for other in (b"", b"abc", packed[:-1], packed + b"x"):
        assert split_rng(other) is None
        with pytest.raises(ValueError, match="no packed state"):
            unpack_rng(other)
