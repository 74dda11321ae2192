"""Values of a program's own record types survive, and nothing of a type is called to make them."""

import collections
import dataclasses
import enum
import json

import pytest
import torch

from spotproof import UnsafeState
from spotproof.checkpoint import records
from spotproof.checkpoint.tree import TreeEncoder, decode_tree

Pair = collections.namedtuple("Pair", "state reward")


class Phase(enum.Enum):
    WARM_UP = 1
    LATER = 2


@dataclasses.dataclass
class Kept:
    loss: float
    seen: torch.Tensor

    def __post_init__(self):
        raise AssertionError("called")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    phase: Phase
    pairs: list


@dataclasses.dataclass
class Acting:
    path: str

    def __del__(self):
        pass


def round_trip(value):
    """Return *value* after encoding, JSON and decoding."""
    encoder = TreeEncoder(allow_pickle=False)
    data = json.loads(json.dumps(encoder.encode(value, "root")))
    return decode_tree(data, [tensor.clone() for _, tensor in encoder.tensors])


def test_records_come_back_of_their_types():
    """Enums as the same members, nested in each other, with tensors in them."""
    frozen = Frozen(Phase.LATER, [Pair(torch.ones(2), 0.5)])
    back = round_trip(collections.deque([frozen], maxlen=3))

    assert type(back[0]) is Frozen
    assert back[0].phase is Phase.LATER
    assert type(back[0].pairs[0]) is Pair
    assert back[0].pairs[0].state.tolist() == [1, 1]


def test_nothing_of_the_type_is_called():
    """Not even what a dataclass does after its fields are set."""
    kept = object.__new__(Kept)
    kept.loss, kept.seen = 0.5, torch.zeros(1)
    back = round_trip(kept)

    assert type(back) is Kept
    assert back.loss == 0.5


@pytest.mark.parametrize("kind", ["enum", "tuple", "dataclass"])
@pytest.mark.parametrize("name", ["gone:Type", "os:system", "pathlib:Path", f"{__name__}:Acting", "builtins:list"])
def test_another_type_is_not_made(kind, name):
    """What is not loaded, or no such record, gives the parts as they are."""
    parts = ["a", "b"] if kind == "tuple" else {"path": "x"} if kind == "dataclass" else "LATER"
    assert records.made_of(kind, name, parts) == (tuple(parts) if kind == "tuple" else parts)


def test_what_could_not_be_found_again_is_refused():
    """A type that a function makes, one that acts when it is freed, and keys that stand for themselves."""

    @dataclasses.dataclass
    class Local:
        x: int

    for value in (Local(1), Acting("x"), {torch.ones(1): 1}):
        with pytest.raises(UnsafeState):
            TreeEncoder(allow_pickle=False).encode(value, "root")
