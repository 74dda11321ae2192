"""Generators that modules of the user's own hold: found wherever they come to lie."""

import random
import sys
import types

import numpy as np
import pytest

from spotproof.checkpoint.module_generators import generators_of_modules
from spotproof.checkpoint.rng import pack_rng, unpack_rng


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's."""
    module = types.ModuleType("augmentations")
    module.__file__ = str(tmp_path / "augmentations.py")
    monkeypatch.setitem(sys.modules, "augmentations", module)
    return module


def found():
    return {path: item for path, item in generators_of_modules() if path.startswith("augmentations.")}


def test_generators_that_come_later_are_found(module):
    """As a new global, in the place of None or of another, and in a list or a dict that was there."""
    module.RNG, module.BY_NAME, module.ALL, module.SIZE = None, {}, [], 3
    assert found() == {}

    module.RNG = np.random.default_rng(1)
    module.BY_NAME["flip"] = random.Random(2)
    module.ALL.append(random.Random(3))
    # Before a new global lets all of them be looked through again.
    assert set(found()) == {f"augmentations.{name}" for name in ("RNG", "BY_NAME.flip", "ALL.0")}

    module.NEW = random.Random(4)
    assert set(found()) == {f"augmentations.{name}" for name in ("RNG", "BY_NAME.flip", "ALL.0", "NEW")}

    module.RNG = np.random.default_rng(5)
    assert found()["augmentations.RNG"] is module.RNG


def test_a_module_that_is_loaded_again_is_looked_through_again(module, monkeypatch):
    """Another module of the same name, with as many globals."""
    module.SEED = 1
    assert found() == {}
    again = types.ModuleType("augmentations")
    again.__file__ = module.__file__
    again.RNG = random.Random(1)
    monkeypatch.setitem(sys.modules, "augmentations", again)

    assert set(found()) == {"augmentations.RNG"}


def test_libraries_are_left_alone(monkeypatch):
    """What they hold is theirs: only what seeds can set is expected of a program."""
    module = types.ModuleType("library")
    module.__file__ = np.__file__
    module.RNG = random.Random(1)
    monkeypatch.setitem(sys.modules, "library", module)

    assert not [path for path, _ in generators_of_modules() if path.startswith("library.")]


def test_their_states_come_back(module):
    """With those of the process."""
    module.RNG = np.random.default_rng(1)
    packed = pack_rng()
    drawn = [module.RNG.random(), random.random()]
    unpack_rng(packed)

    assert [module.RNG.random(), random.random()] == drawn
