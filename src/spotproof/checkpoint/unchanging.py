"""Which tensors need no copy: those that have not changed from save to save, until they do.

A frozen backbone is most of the bytes of a fine-tuned model. A tensor whose bytes were the same in two saves is taken
to be unchanging: the next save does not copy it but uses the copy of before. That is a guess, and a wrong one would be
a wrong checkpoint, so it is checked where it costs training nothing: the writer hashes the live tensor behind the
training's back, and gives the save up if it is not what was copied. ``requires_grad`` would be no better guess (target
networks change without it), and a tensor's version counter tells only that it changed, never that it did not: fused
optimizers do not count.
"""

from dataclasses import dataclass

import torch

__all__ = ["MIN_KEPT_BYTES", "Unchanging", "identity_of"]

MIN_KEPT_BYTES = 2**16
"""Smaller tensors are copied in less time than it takes to think about them."""


@dataclass(slots=True)
class _History:
    hash: str
    identity: tuple[int, int]
    streak: int = 0
    """Commits in a row that found the same bytes."""
    needed: int = 1
    """Streak from which it is taken to be unchanging; doubles with each disappointment."""


class Unchanging:
    """Remembers what each tensor was in the last commit.

    Owned by whoever owns the save under way: the caller until it is staged, the writer until it is committed.
    """

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}

    def known_hash(self, name: str, identity: tuple[int, int]) -> str | None:
        """Return the hash of the tensor of this name and :func:`identity_of` if it is taken to be what it was in the
        last commit, else None."""
        history = self._histories.get(name)
        if history is None or history.streak < history.needed or identity != history.identity:
            return None
        return history.hash

    def committed(self, name: str, digest: str, identity: tuple[int, int] | None) -> None:
        """Note the bytes of a tensor in a commit, and the identity that :func:`identity_of` gave when it was staged."""
        if identity is None:
            return
        history = self._histories.get(name)
        if history is None:
            self._histories[name] = _History(digest, identity)
            return
        history.streak = history.streak + 1 if history.hash == digest else 0
        history.hash, history.identity = digest, identity

    def clear(self) -> None:
        """Know nothing, so that everything is copied."""
        self._histories.clear()

    def disappointed(self, name: str) -> None:
        """Note that a tensor was taken to be unchanging and had changed."""
        history = self._histories[name]
        history.streak, history.needed = 0, 2 * history.needed


def identity_of(tensor: torch.Tensor) -> tuple[int, int] | None:
    """Return what changes at least if *tensor* is replaced or changed by a counted operation; None if it is small, or
    does not lie as one block in host memory, and is copied each time."""
    if tensor.numel() * tensor.element_size() < MIN_KEPT_BYTES or tensor.device.type != "cpu":
        return None
    if not tensor.is_contiguous() or tensor.is_inference():
        return None
    return tensor.data_ptr(), tensor._version
