"""Data that is read item by item, pass after pass: where it stands, and how to go on from there.

What keeps a position of its own (a data set, its iterator or a loader with ``state_dict`` and ``load_state_dict``) is
asked for it. What keeps none is read again up to where it was.

Between two passes a position alone does not say how the next pass begins: some sources begin anew with each ``iter()``,
others go on where the last pass was cut off, and the state that both return is the one after the last item until the
first item of the new pass is read. So a resume at the very beginning of a pass tries the ways there are, and takes the
one that leads to the state that followed.
"""

import copy
import json
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import torch
from torch.utils.data import DataLoader

from spotproof.checkpoint.tree import TreeEncoder
from spotproof.errors import UnsafeState

__all__ = ["AT_THE_NEXT_PASS", "Passes", "has_state", "is_same_state"]

AT_THE_NEXT_PASS: Final = {"count": 0, "is_new": False, "is_ended": False, "attributes": {}, "iterator": None}
"""Makes the position after the last item of a pass the one before the first of the next."""


def has_state(source: object) -> bool:
    """Whether *source* can say where it stands."""
    return hasattr(source, "state_dict") and hasattr(source, "load_state_dict")


class Passes(Iterator[Any]):
    """Reads *source* as ``iter(source)`` would, one pass after another, and knows the position."""

    def __init__(self, source: Any, *, asks_iterator: bool = True) -> None:
        self._source = source
        self._asks_iterator = asks_iterator
        self._iterator: Any = None
        self._peeked: deque[Any] = deque()
        self._is_first = True
        self._is_stale = False
        """Whether what the source says about its position is still that of the pass before."""
        self._is_ended = False
        self._begins_after: dict[str, Any] | None = None
        """If this pass was resumed at its very end: where the next one begins."""
        self.count = 0
        """Items of this pass that were read."""

    @property
    def keeps_position(self) -> bool:
        """Whether a resume need not read items again."""
        return has_state(self._source) or (self._asks_iterator and has_state(self._iterator))

    def begin(self) -> None:
        """Begin a pass."""
        self._is_ended = False
        if self._begins_after is not None:
            position, self._begins_after = self._begins_after, None
            self.go_on({**position, "count": 0, "is_ended": False}, before_pass=_nothing, before_item=_nothing)
            return
        self._is_first = self._iterator is None
        before = None if self._is_first else self._state()
        self._iterator = iter(self._source)
        self._is_stale = before is not None and is_same_state(before, self._state())
        self.count = 0

    def __next__(self) -> Any:
        try:
            item = self._peeked.popleft() if self._peeked else next(self._iterator)
        except StopIteration:
            self._is_ended = True
            raise
        self.count += 1
        return item

    def position(self) -> dict[str, Any]:
        """Return where this pass stands."""
        if self._begins_after is not None:
            return self._begins_after
        if self._is_ended:  # its last batch was short, and what it says is the beginning of the next pass
            return {**self.end_position(), "count": self.count, "is_ended": True}
        if self.count == 0 and self._is_stale:
            return self.end_position()
        iterator = self._iterator
        is_own = self._asks_iterator and iterator is not self._source and has_state(iterator)
        return {
            "count": self.count,
            "is_new": self.count == 0 and self._is_first,
            "is_ended": False,
            "source": self._state(),
            "iterator": copy.deepcopy(iterator.state_dict()) if is_own else None,
        }

    def end_position(self) -> dict[str, Any]:
        """Return the position before the first item of the next pass, whether this one was read to its end or not."""
        state = self._state()
        attributes = {} if state is None else _plain_attributes(self._source)
        return {**AT_THE_NEXT_PASS, "source": state, "attributes": attributes}

    def _state(self) -> Any:
        if not has_state(self._source):
            return None
        try:
            return copy.deepcopy(self._source.state_dict())
        except Exception:
            if self._iterator is None or (self.count == 0 and self._is_first):
                return None  # some know no position before they are read
            raise

    def go_on(
        self, position: dict[str, Any], *, before_pass: Callable[[], None], before_item: Callable[[], None]
    ) -> str:
        """Go on at *position*; return "" or, if what is read now is not what was read then, words that say so.

        Args:
            position: What :meth:`position` returned, with the ``next`` position if that is known.
            before_pass: Sets the generators as they were before the pass.
            before_item: Sets the generators as they were before the next item.
        """
        before_pass()
        said = ""
        self.count = position["count"]
        self._is_ended = position["is_ended"]
        if self._is_ended:
            self._iterator, self._begins_after = iter(()), position
            before_item()
        elif "attributes" in position and position["source"] is not None:
            said = self._begin_next(position, before_pass, before_item)
        else:
            is_at_start = position["is_new"] or "attributes" in position
            self._iterator = iter(self._source) if is_at_start else self._restored(position)
            if position["source"] is None and position["iterator"] is None:
                num_again = sum(1 for _ in islice(self._iterator, self.count))
                if num_again < self.count:
                    said = f"it ended after {num_again} of the {self.count} items that were read before"
            before_item()
        self._is_first, self._is_stale = position["is_new"], False
        return said

    def _restored(self, position: dict[str, Any]) -> Any:
        state = position["source"]
        if state is not None:
            self._source.load_state_dict(copy.deepcopy(state))
        iterator = iter(self._source)
        if iterator is self._source and state is not None:
            self._source.load_state_dict(copy.deepcopy(state))  # iter() may have set it to the beginning
        if position["iterator"] is not None and has_state(iterator):
            iterator.load_state_dict(position["iterator"])
        return iterator

    def _begin_next(
        self, position: dict[str, Any], before_pass: Callable[[], None], before_item: Callable[[], None]
    ) -> str:
        if isinstance(self._source, DataLoader):
            # A loader with state takes it up in iter(), and begins anew with the next: nothing is left to be found out.
            self._restored(position)
            before_pass()
            self._iterator = iter(self._source)
            before_item()
            return ""
        following = position.get("next")
        for begin in (self._as_it_was, self._as_restored, self._anew):
            before_pass()
            iterator = begin(position, before_pass)
            if iterator is None:
                continue
            self._iterator = iterator
            before_item()
            self._peeked = deque(islice(iterator, following["count"] if following is not None else 1))
            if following is None and self._peeked:
                return ""
            if following is not None and is_same_state(self._state(), following["source"]):
                return ""
        return "the pass does not begin as it did" if following is not None else ""

    def _as_it_was(self, position: dict[str, Any], _: Callable[[], None]) -> Any:
        """Begin a pass with the source's attributes as they were, if they are what its state consists of."""
        if not position["attributes"]:
            return None
        kept = _plain_attributes(self._source)
        vars(self._source).update(copy.deepcopy(position["attributes"]))
        if is_same_state(self._state(), position["source"]):
            return iter(self._source)
        vars(self._source).update(kept)
        return None

    def _as_restored(self, position: dict[str, Any], _: Callable[[], None]) -> Any:
        return self._restored(position)

    def _anew(self, position: dict[str, Any], before_pass: Callable[[], None]) -> Any:
        """Let the source take up its position and go on from it; the pass after that begins at the beginning."""
        next(self._restored(position), None)
        before_pass()
        return iter(self._source)


def _nothing() -> None:
    pass


def _plain_attributes(source: Any) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in getattr(source, "__dict__", {}).items() if _is_plain(value)})


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple, set)):
        return len(value) <= _MAX_ITEMS and all(map(_is_plain, value))
    return type(value) in (int, float, bool, str, type(None))


_MAX_ITEMS = 1024
"""Longer containers are data."""


def is_same_state(one: Any, other: Any) -> bool:
    """Whether two states hold the same values and tensors."""
    encoders = TreeEncoder(), TreeEncoder()
    try:
        texts = [json.dumps(encoder.encode(state, "")) for encoder, state in zip(encoders, (one, other), strict=True)]
    except UnsafeState:
        return False  # a save says so
    tensors = [[tensor for _, tensor in encoder.tensors] for encoder in encoders]
    return texts[0] == texts[1] and all(map(torch.equal, *tensors))
