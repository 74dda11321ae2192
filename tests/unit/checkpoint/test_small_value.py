"""Small values: what is large is left alone, and what is changed is seen."""

import json
from collections import deque

import numpy as np
import pytest
import torch

from spotproof.checkpoint.small_value import SmallValue, encode_small

MEBIBYTE = 2**20


@pytest.mark.parametrize(
    "value",
    [
        "x" * (MEBIBYTE + 1),
        b"x" * (MEBIBYTE + 1),
        ["x" * MEBIBYTE, "yy"],
        torch.zeros(MEBIBYTE + 1, dtype=torch.uint8),
        {"a": np.zeros(MEBIBYTE // 8), "b": np.zeros(1)},
        list(range(1024)),
        [[0] * 600, [0] * 600],
    ],
)
def test_what_is_large_is_left_alone(value):
    """Data, which would make each save longer: a text is no smaller than a tensor of its bytes."""
    assert encode_small(value) is None


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 2),
        (1.0, 1),
        ("a", "b"),
        (torch.zeros(3), torch.tensor([0.0, 0.0, -0.0])),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int32)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (np.zeros(3), torch.zeros(3, dtype=torch.float64)),
        ([1, 2], (1, 2)),
        ({"a": {1, 2}}, {"a": {1, 3}}),
        (deque([1], maxlen=2), deque([1], maxlen=3)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    ],
)
def test_what_is_changed_is_seen_and_comes_back(value, other):
    """The fingerprint tells them apart; what comes back through JSON has the fingerprint of what went."""
    one, two = encode_small(value), encode_small(other)
    assert one is not None
    assert two is not None

    assert one.fingerprint() != two.fingerprint()
    for taken in (one, two):
        back = encode_small(SmallValue.from_json(json.loads(json.dumps(taken.to_json()))))
        assert back is not None
        assert back.fingerprint() == taken.fingerprint()
