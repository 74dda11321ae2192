"""Packs are safetensors files, and the copy is a copy."""

import torch
from safetensors.torch import load

from spotproof.checkpoint.stage import PACK_BYTES, Stager


def test_a_pack_is_a_safetensors_file():
    """The format's own library reads names, dtypes, shapes and values back."""
    tensors = [
        ("a/bool", torch.tensor([True, False, True])),
        ("b/half", torch.randn(3, 5).half()),
        ("c/double", torch.randn(2, dtype=torch.float64)),
        ("d/scalar", torch.tensor(3)),
        ("e/none", torch.empty(0, 4)),
        ("f/transposed", torch.randn(4, 3).t()),
    ]
    (pack,) = Stager().stage({}, tensors).packs

    read = load(bytes(pack.header) + bytes(pack.data))

    assert read.keys() == dict(tensors).keys()
    for name, tensor in tensors:
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype


def test_later_changes_do_not_reach_the_copy():
    """Training may go on while the pack is written."""
    tensor = torch.zeros(4)
    (pack,) = Stager().stage({}, [("t", tensor)]).packs
    tensor += 1
    assert bytes(pack.data) == bytes(16)


def test_buffers_are_kept_as_long_as_the_layout_is():
    """A second save of the same shapes allocates nothing; other shapes get other buffers."""
    stager = Stager()
    first = stager.stage({}, [("t", torch.zeros(4))]).packs[0]
    second = stager.stage({}, [("t", torch.ones(4))]).packs[0]
    third = stager.stage({}, [("t", torch.ones(5))]).packs[0]
    assert second.data is first.data
    assert third.data is not first.data


def test_large_states_are_cut_into_packs():
    """A pack is closed once it has reached its size."""
    half = torch.empty(PACK_BYTES // 2, dtype=torch.uint8)
    packs = Stager().stage({}, [("a", half), ("b", half.clone()), ("c", half.clone())]).packs
    assert [[tensor.name for tensor in pack.tensors] for pack in packs] == [["a", "b"], ["c"]]
