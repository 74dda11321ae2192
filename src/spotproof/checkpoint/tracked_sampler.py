"""The index source of a loader, with a position that can be saved and drawn to again."""

import random
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
import xxhash
from torch.utils.data import Sampler

from spotproof.checkpoint.generators import generator_state, new_generator, set_generator_state
from spotproof.checkpoint.passes import is_same_state
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.seek import seek

__all__ = ["OrderMismatch", "TrackedSampler", "capture_sampler", "restore_sampler"]

OrderMismatch = Callable[[str], None]
"""Called with words for a person when the order that is drawn now is not the order of the interrupted pass."""


class TrackedSampler(Sampler[Any]):
    """The loader's index source, with a position. Lives in the main process; torch draws from it ahead of time."""

    def __init__(self, inner: Any, on_mismatch: OrderMismatch | None) -> None:
        self._inner = inner
        self._on_mismatch = on_mismatch
        self.ignores_next_iter = False
        """Whether torch asks for an iterator only to start workers, and for the one that it uses after that."""
        self.start_pass()

    def start_pass(self) -> None:
        self._resume: tuple[dict[str, Any], int] | None = None  # one that ended before anything was drawn is over
        self._start: dict[str, Any] | None = None
        """What the order depends on: generators and sampler as they were at the first index, and ``at_iter`` if asking
        for an iterator changed them."""
        self._undrawn: dict[str, Any] | None = None
        """The same of an iterator that nothing was drawn from yet."""
        self._after_iter: list[dict[str, Any] | None] = []
        """What each ``iter()`` of this pass that changed generators or the sampler left."""
        self._num_resumed_iters = 0
        self._consumed = 0
        self._hasher = xxhash.xxh3_64()
        """Of the indices of all batches handed out."""
        self._drawn: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)  # set_epoch, sampler, batch_size, …

    def resume(self, state: dict[str, Any], leading: int) -> None:
        self._resume = (state, leading)

    def consumed_one(self) -> None:
        self._hasher.update(self._drawn.popleft())
        self._consumed += 1

    def state_dict(self) -> dict[str, Any]:
        if self._resume is not None:  # the iterator was made, but nothing was drawn from it yet
            state, _ = self._resume
            return {name: state[name] for name in ("start", "sampler", "consumed", "digest", "in_flight")}
        start = self._start
        if self._undrawn is not None:
            start = {**self._undrawn, "sampler": capture_sampler(self._inner)}
        return {
            "start": start,
            "sampler": capture_sampler(self._inner),
            "consumed": self._consumed,
            "digest": self._hasher.intdigest(),
            "in_flight": [xxhash.xxh3_64_intdigest(indices) for indices in self._drawn],
        }

    def __iter__(self) -> Iterator[Any]:
        if self.ignores_next_iter:
            self.ignores_next_iter = False
            return iter(())
        if self._resume is not None and self._resume[0]["start"] is not None:
            self._leave_as_then(self._resume[0]["start"]["after_iter"])
            return self._resumed()
        # Some samplers draw their order now, others at the first index. torch may ask twice, and use the second.
        at_iter = self._capture()
        source = iter(self._inner)
        after_iter = self._capture()
        if is_same_state(at_iter, after_iter):
            at_iter = after_iter = None
        self._after_iter.append(after_iter)
        self._undrawn = {"at_iter": at_iter, "after_iter": self._after_iter, "rng": None}
        return self._begun(source, at_iter)

    def _capture(self) -> dict[str, Any] | None:
        return {"rng": pack_rng(), "sampler": capture_sampler(self._inner)}

    def _leave_as_then(self, after_iter: list[dict[str, Any] | None]) -> None:
        """Leave the generators as this ``iter()`` of the interrupted pass did: torch seeds workers from them next."""
        if self._num_resumed_iters < len(after_iter):
            then = after_iter[self._num_resumed_iters]
            if then is not None:
                unpack_rng(then["rng"])
                restore_sampler(self._inner, then["sampler"])
        self._num_resumed_iters += 1

    def _begun(self, source: Iterator[Any], at_iter: dict[str, Any] | None) -> Iterator[Any]:
        self._undrawn = None
        self._start = {
            "at_iter": at_iter,
            "after_iter": self._after_iter,
            "rng": pack_rng(),
            "sampler": capture_sampler(self._inner),
        }
        yield from self._drawing(source)

    def _resumed(self) -> Iterator[Any]:
        # A generator: its body runs at the first draw, and so once.
        assert self._resume is not None
        (state, leading), self._resume = self._resume, None
        start = state["start"]
        self._after_iter = start["after_iter"]
        if start["rng"] is None:  # nothing was drawn
            yield from self._begun(self._begun_again(start, pack_rng()), start["at_iter"])
            return
        for _ in range(leading):
            yield []  # gives workers the same share of the batches as in the interrupted pass
        self._start = start
        source, in_flight = self._replay(state)
        for indices in in_flight:
            self._drawn.append(_encoded(indices))
            yield indices
        yield from self._drawing(source)

    def _begun_again(self, start: dict[str, Any], rng: bytes) -> Iterator[Any]:
        """Return the order that begins as *start* says, and leave the generators at *rng*, those of the first index."""
        at_iter = start["at_iter"]
        if at_iter is not None:
            unpack_rng(at_iter["rng"])
            restore_sampler(self._inner, at_iter["sampler"])
            source = iter(self._inner)
        unpack_rng(rng)
        restore_sampler(self._inner, start["sampler"])
        return source if at_iter is not None else iter(self._inner)

    def _replay(self, state: dict[str, Any]) -> tuple[Iterator[Any], list[Any]]:
        """Draw the order again up to where the interrupted pass had drawn it; return what follows, and what of it had
        been drawn but not handed out. Leaves the generators as they were: this happens whenever torch first draws."""
        current = pack_rng()
        for skip in (self._sought, self._drawn_again):
            skipped = skip(state["start"], state["consumed"])
            if skipped is None:
                continue
            source, self._consumed, self._hasher = skipped
            in_flight = list(islice(source, len(state["in_flight"])))
            mismatch = self._difference(state, in_flight)
            if mismatch is None:
                break
        unpack_rng(current)
        restore_sampler(self._inner, _numbers_in(state["sampler"]))  # training may change weights during the pass
        if mismatch is not None:
            self._mismatch(mismatch)
            self._consumed = state["consumed"]
        return source, in_flight

    def _sought(self, start: dict[str, Any], num_draws: int) -> "tuple[Iterator[Any], int, xxhash.xxh3_64] | None":
        if start["at_iter"] is not None:
            return None  # none of torch's own does so
        unpack_rng(start["rng"])
        restore_sampler(self._inner, start["sampler"])
        found = seek(self._inner, num_draws)
        return None if found is None else (found[0], num_draws, xxhash.xxh3_64(found[1]))

    def _drawn_again(self, start: dict[str, Any], num_draws: int) -> "tuple[Iterator[Any], int, xxhash.xxh3_64]":
        source = self._begun_again(start, start["rng"])
        hasher, count = xxhash.xxh3_64(), 0
        for indices in islice(source, num_draws):
            hasher.update(_encoded(indices))
            count += 1
        return source, count, hasher

    def _difference(self, state: dict[str, Any], in_flight: list[Any]) -> str | None:
        if (self._consumed, self._hasher.intdigest()) != (state["consumed"], state["digest"]):
            return f"the {state['consumed']} batches already trained on could not be drawn again in their order"
        if [xxhash.xxh3_64_intdigest(_encoded(indices)) for indices in in_flight] != state["in_flight"]:
            return "batches that were already prepared could not be drawn again in their order"
        return None

    def _drawing(self, source: Iterator[Any]) -> Iterator[Any]:
        for indices in source:
            self._drawn.append(_encoded(indices))
            yield indices

    def _mismatch(self, what: str) -> None:
        if self._on_mismatch is not None:
            source = type(getattr(self._inner, "sampler", self._inner)).__name__
            self._on_mismatch(
                f"The data order is not the one of the interrupted run: {what}. The sampler ({source}) or the data set "
                "does not depend on the random-number generators alone, or has changed. Give the sampler state_dict "
                "and load_state_dict, or let it draw from a seeded generator."
            )


def _encoded(indices: Any) -> bytes:
    """Return the bytes that stand for one draw: int64 where they are integers, which is what a seek has at hand."""
    try:
        return array("q", indices if isinstance(indices, list) else [indices]).tobytes()
    except (TypeError, OverflowError):
        return repr(indices).encode()


def capture_sampler(sampler: Any) -> dict[str, Any]:
    """Return what the order depends on besides the global generators: the sampler's own generators and plain values."""
    if isinstance(sampler, TrackedSampler):
        return capture_sampler(sampler._inner)
    if hasattr(sampler, "state_dict") and hasattr(sampler, "load_state_dict"):
        return {"state": sampler.state_dict()}
    found: dict[str, Any] = {}
    for name, value in getattr(sampler, "__dict__", {}).items():
        if isinstance(value, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
            found[name] = {"generator": generator_state(value)}
        elif isinstance(value, Sampler) or name in ("sampler", "batch_sampler"):
            found[name] = {"nested": capture_sampler(value)}
        elif isinstance(getattr(value, "_sampler", None), Sampler):  # Lightning shares out one of the user's so
            found[name] = {"shared": capture_sampler(value._sampler)}
        elif type(value) in (int, float, bool, str, type(None)):
            found[name] = {"value": value}
        elif name == "weights" or not type(sampler).__module__.startswith("torch."):
            # torch's own change nothing of theirs as they draw; but weights are what training may change.
            numbers = _numbers(value)
            if numbers is not None:
                found[name] = {"numbers": numbers}
    return {"attributes": found}


def _numbers_in(captured: dict[str, Any]) -> dict[str, Any]:
    """Return of what :func:`capture_sampler` returned the lists, arrays and tensors."""
    kept: dict[str, Any] = {}
    for name, entry in captured.get("attributes", {}).items():
        ((kind, state),) = entry.items()
        if kind == "numbers":
            kept[name] = entry
        elif kind in ("nested", "shared"):
            kept[name] = {kind: _numbers_in(state)}
    return {"attributes": kept}


def restore_sampler(sampler: Any, captured: dict[str, Any]) -> None:
    """Set what :func:`capture_sampler` returned."""
    if isinstance(sampler, TrackedSampler):
        sampler = sampler._inner
    if "state" in captured:
        sampler.load_state_dict(captured["state"])
        return
    for name, entry in captured["attributes"].items():
        ((kind, state),) = entry.items()
        target = getattr(sampler, name, None)
        if kind == "generator" and target is None:
            vars(sampler)[name] = new_generator(state)  # some samplers make theirs at the first draw
        elif kind == "generator":
            set_generator_state(target, state)
        elif kind == "nested":
            restore_sampler(target, state)
        elif kind == "shared" and target is not None:
            restore_sampler(target._sampler, state)
        elif kind == "numbers" and target is not None and len(target) == len(state):
            # In place: a list of indices that a sampler shuffles may be held elsewhere, too.
            target[:] = state.tolist() if isinstance(target, list) else state
        elif kind == "numbers":
            vars(sampler)[name] = state.tolist()
        elif kind == "value":
            vars(sampler)[name] = state


def _numbers(value: Any) -> Any:
    """Return a copy of *value* if it is a list, an array or a tensor of numbers, such as indices to be shuffled."""
    if isinstance(value, torch.Tensor) and value.dim() > 0:
        return value.clone()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value.copy()
    if type(value) is list and value:
        try:
            return torch.frombuffer(array("q", value), dtype=torch.int64)
        except (TypeError, OverflowError):
            return None
    return None
