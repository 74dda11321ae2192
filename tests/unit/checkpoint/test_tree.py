"""State trees survive the way to JSON and back, or are refused by name."""

import collections
import json
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spotproof import UnsafeState
from spotproof.checkpoint.tree import TreeEncoder, decode_tree


def round_trip(value):
    """Return *value* after encoding, JSON and decoding."""
    encoder = TreeEncoder()
    data = json.loads(json.dumps(encoder.encode(value, "root")))
    return decode_tree(data, [tensor.clone() for _, tensor in encoder.tensors])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=20,
)


@given(plain)
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    """Whatever nesting of plain values, even with keys that look like our tags."""
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        -0.0,
        2**80,
        1 + 2j,
        {"$tensor": 3},
        {1: "a", (2, "b"): [None]},
        collections.OrderedDict(b=1, a=2),
        collections.Counter("abba"),
        collections.defaultdict(list, {"a": [1]}),
        collections.deque([1, 2], maxlen=3),
        bytearray(b"x"),
        {3, 1, 2},
        torch.Size([2, 3]),
        torch.bfloat16,
        torch.device("cpu"),
        pathlib.Path("a/b"),
        np.float32(0.1),
        np.int64(7),
    ],
    ids=repr,
)
def test_rare_values_come_back_equal_and_of_the_same_type(value):
    """What optimizers, schedulers, callbacks and hyperparameters are known to hold."""
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex128, torch.uint16]
)
def test_tensors_keep_dtype_shape_and_bytes(dtype):
    """Also transposed, empty and zero-dimensional ones."""
    whole = (torch.arange(12) % 5).reshape(3, 4).to(dtype)
    for tensor in (whole, whole.t(), whole[1, 2], whole[:0]):
        back = round_trip({"t": tensor})["t"]
        assert back.dtype == dtype
        assert back.shape == tensor.shape
        assert torch.equal(back, tensor)


def test_numpy_arrays_come_back_as_arrays():
    """With their dtype and shape."""
    array = np.arange(6, dtype=np.uint32).reshape(2, 3)
    back = round_trip(array)
    assert isinstance(back, np.ndarray)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_shared_tensors_are_stored_once():
    """Tied weights are one tensor with two references."""
    weight = torch.randn(3)
    encoder = TreeEncoder()
    encoder.encode({"a": weight, "b": weight.view(3), "c": weight[:2]}, "root")
    assert [name for name, _ in encoder.tensors] == ["root/a", "root/c"]


class Opaque:
    """Can't be stored safely."""


def test_what_could_not_be_read_back_is_refused_by_place_and_type():
    """The error names both and what to do."""
    with pytest.raises(UnsafeState, match=r"test_tree.Opaque at 'root/a/1'.*add_safe_globals\(\[Opaque\]\)"):
        TreeEncoder().encode({"a": [1, Opaque()]}, "root")


def test_a_type_that_the_user_allowed_is_stored():
    """torch.serialization.add_safe_globals is honoured."""
    with torch.serialization.safe_globals([Opaque]):
        assert isinstance(round_trip([Opaque()])[0], Opaque)
