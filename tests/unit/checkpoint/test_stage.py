"""The copy is a copy, in buffers that are kept."""

import torch

from spotproof.checkpoint.stage import Stager
from spotproof.checkpoint.unchanging import Unchanging


def stage(stager, **tensors):
    """Return the staged tensors."""
    return stager.stage({}, list(tensors.items())).tensors


def test_later_changes_do_not_reach_the_copy():
    """Training may go on while the copy is written."""
    tensor = torch.zeros(4)
    (staged,) = stage(Stager(Unchanging()), t=tensor)
    tensor += 1
    assert bytes(staged.data) == bytes(16)


def test_buffers_are_kept_as_long_as_the_shape_is():
    """A second save of the same shapes allocates nothing; a tensor that comes later gets a buffer of its own."""
    stager = Stager(Unchanging())
    first = stage(stager, t=torch.zeros(4))
    second = stage(stager, n=torch.ones(3), t=torch.ones(4))
    third = stage(stager, t=torch.ones(5))
    assert second[1].buffer is first[0].buffer
    assert second[0].buffer is not first[0].buffer
    assert third[0].buffer is not first[0].buffer


def test_paths_that_read_the_same_are_told_apart():
    """The keys 1 and "1" of a dict give two tensors of one name."""
    first, second = Stager(Unchanging()).stage({}, [("t", torch.zeros(4)), ("t", torch.ones(4))]).tensors
    assert bytes(first.data) != bytes(second.data)


def test_every_kind_of_tensor_is_copied_bit_for_bit():
    """All dtypes, scalars, empty and transposed ones."""
    tensors = {
        "bool": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(3).bfloat16(),
        "complex": torch.randn(2, dtype=torch.complex64),
        "double": torch.randn(2, dtype=torch.float64),
        "scalar": torch.tensor(3),
        "none": torch.empty(0, 4),
        "transposed": torch.randn(4, 3).t(),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "negative": torch.randn(3, dtype=torch.complex64).conj().imag.contiguous()._neg_view(),
    }
    for staged, (name, tensor) in zip(stage(Stager(Unchanging()), **tensors), tensors.items(), strict=True):
        assert staged.name == name
        assert (
            bytes(staged.data)
            == tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )


def test_what_did_not_change_in_two_commits_is_not_copied_again():
    """Its earlier copy stands, to be checked by the writer; a counted change, or a small tensor, is copied at once."""
    unchanging = Unchanging()
    stager = Stager(unchanging)
    big, small = torch.zeros(2**16), torch.zeros(4)
    for _ in range(2):
        for staged in stage(stager, big=big, small=small):
            assert staged.live is None
            unchanging.committed(staged.name, "hash", staged.identity)

    one, other = stage(stager, big=big, small=small)
    assert (one.known_hash, one.live is big, other.live) == ("hash", True, None)

    big += 1
    one, _ = stage(stager, big=big, small=small)
    assert one.live is None
    assert bytes(one.data) == big.numpy().tobytes()


def test_each_disappointment_makes_it_harder_to_be_believed():
    """A tensor that had changed uncounted must stand still for twice as many commits."""
    unchanging = Unchanging()
    stager = Stager(unchanging)
    big = torch.zeros(2**16)

    def commits_until_believed():
        for count in range(100):
            (staged,) = stage(stager, t=big)
            if staged.live is not None:
                return count
            unchanging.committed("t", "hash", staged.identity)
        return None

    assert commits_until_believed() == 2
    unchanging.disappointed("t")
    assert commits_until_believed() == 2
    unchanging.disappointed("t")
    assert commits_until_believed() == 4
