"""Generators that objects own: found, saved, set, and made where they are not there yet."""

import random
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spotproof.checkpoint.generators import (
    find_generators,
    generator_state,
    load_generators,
    new_generator,
    pack_generators,
)

DRAWS = {
    "torch": (lambda: torch.Generator().manual_seed(3), lambda generator: torch.rand(3, generator=generator).tolist()),
    "numpy": (lambda: np.random.default_rng(3), lambda generator: generator.random(3).tolist()),
    "numpy's other": (
        lambda: np.random.Generator(np.random.Philox(3)),
        lambda generator: generator.integers(9, size=3).tolist(),
    ),
    "numpy's old": (lambda: np.random.RandomState(3), lambda generator: generator.normal(size=3).tolist()),
    "python": (lambda: random.Random(3), lambda generator: [generator.gauss(0, 1) for _ in range(3)]),
}


@pytest.mark.parametrize(("make", "draw"), DRAWS.values(), ids=DRAWS)
def test_one_is_made_of_its_state(make, draw):
    """Of the same kind, and it draws what the other would."""
    generator = make()
    draw(generator)
    made = new_generator(generator_state(generator))

    assert type(made) is type(generator)
    assert draw(made) == draw(generator)


@pytest.mark.parametrize(("make", "draw"), DRAWS.values(), ids=DRAWS)
def test_one_that_is_not_there_yet_is_made(make, draw):
    """If its owner has a place for it; an attribute that is something else is left alone."""
    owner = SimpleNamespace(rng=make(), other=make())
    packed = pack_generators(find_generators(owner))
    lazy = SimpleNamespace(rng=None, other="something else")
    load_generators(lazy, packed)

    assert draw(lazy.rng) == draw(owner.rng)
    assert lazy.other == "something else"


def test_no_other_class_is_made():
    """A name in a checkpoint chooses among numpy's own bit generators, and nothing else."""
    state = {**generator_state(np.random.default_rng(3)), "bit_generator": "seed"}
    with pytest.raises(ValueError, match="'seed' is no bit generator"):
        new_generator(state)


def test_keys_that_are_objects_are_not_written_out():
    """The text of a tensor takes milliseconds, and an optimizer has one for each parameter: they go by their place."""

    class Key:
        def __str__(self):
            raise AssertionError("made a text of it")

        __repr__ = __str__

    first, second = random.Random(1), random.Random(2)
    holder = types.SimpleNamespace(by_object={Key(): first, Key(): 3}, by_name={"a": second})

    assert find_generators(holder) == [(".by_object.#0", first), (".by_name.a", second)]


def test_optimizers_and_schedules_are_not_walked_into():
    """They are saved by themselves, and lead to all of a training."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    optimizer.rng = random.Random(1)
    holder = types.SimpleNamespace(
        optimizer=optimizer, schedule=torch.optim.lr_scheduler.ConstantLR(optimizer), rng=random.Random(2)
    )

    assert find_generators(holder) == [(".rng", holder.rng)]
