"""Exact position in loaders of any other make: with a state of their own, or such that can only be read again."""

import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from spotproof.checkpoint.batches import Batches
from spotproof.checkpoint.passes import Passes, has_state
from spotproof.checkpoint.pending import Pending
from spotproof.checkpoint.resumable import OnMismatch, before_pass, restore_before
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.checkpoint.source import Source
from spotproof.checkpoint.worker_state import RestoringInit, TaggingCollate, WorkerState

__all__ = ["ForeignLoader"]


class ForeignLoader(Pending):
    """Stands in front of a loader, and looks like it."""

    def __init__(self, loader: Any, on_mismatch: OnMismatch | None) -> None:
        self._tags = isinstance(loader, DataLoader) and loader.num_workers > 0
        self._source = Source(getattr(loader, "dataset", None), getattr(loader, "collate_fn", None))
        if self._tags:
            # What such a loader forgets are its workers' generators (torchdata 0.11).
            inner = copy.copy(loader)
            vars(inner).update(
                collate_fn=TaggingCollate(loader.collate_fn, self._source),
                worker_init_fn=RestoringInit(loader.worker_init_fn, self._source),
            )
            loader = inner
        self._loader = loader
        self._on_mismatch = on_mismatch or (lambda said: None)
        self._passes = Passes(loader, asks_iterator=not has_state(loader))
        self._workers: dict[int, WorkerState] = {}
        self._before: dict[str, Any] | None = None
        self._batches: Callable[[], Batches | None] = lambda: None
        self._to_resume = self._to_follow = None
        self._is_over = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def _iterator(self) -> Any:
        # Lightning shuts workers down through this.
        return getattr(self._loader, "_iterator", None)

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        if hasattr(self._loader, "_iterator"):
            self._loader._iterator = iterator

    @property
    def kind_of_data(self) -> str:
        """What to call the data in a message."""
        return type(self._loader if self._dataset is None else self._dataset).__name__

    @property
    def reads_again(self) -> bool:
        """Whether a resume reads batches again to find its place."""
        return not self._passes.keeps_position

    def __iter__(self) -> Iterator[Any]:
        state, self._to_resume = self._to_resume, None
        followed, self._to_follow = self._to_follow, None
        before_first = None
        self._workers, self._is_over = {}, False
        if state is not None:
            current = pack_rng()
            restore_before(self._loader, state["before"], self._source)
            self._before = before_pass(self._loader, self._source)
            unpack_rng(current)
            self._workers = {worker: WorkerState(**saved) for worker, saved in state["workers"].items()}
            position, source = state["position"], state["source"]
            before_first = lambda: self._go_on(position, source)  # noqa: E731
        else:
            self._before = before_pass(self._loader, self._source)
            if followed is None:
                self._passes.begin()
            else:
                self._follow(followed["position"])
        batches = Batches(
            self._passes,
            self._received,
            self._ended,
            self._source,
            from_workers=self._tags,
            resumed=state,
            before_first=before_first,
        )
        self._batches = weakref.ref(batches)
        return batches

    def _go_on(self, position: dict[str, Any], source: bytes) -> None:
        current, before = pack_rng(), self._before
        assert before is not None

        def before_item() -> None:
            unpack_rng(current)
            self._source.load(source)

        init = self._loader.worker_init_fn if self._tags else None
        if isinstance(init, RestoringInit):
            init.states = dict(self._workers)
        try:
            said = self._passes.go_on(
                position,
                before_pass=lambda: restore_before(self._loader, before, self._source),
                before_item=before_item,
            )
        finally:
            if isinstance(init, RestoringInit):
                init.states = {}
        if said:
            self._on_mismatch(
                f"The data is not the one of the interrupted run: {said}. {type(self._loader).__name__} does not "
                "depend on its state_dict and the random-number generators alone, or has changed."
            )

    def _follow(self, position: dict[str, Any]) -> None:
        if position["source"] is None:
            self._passes.begin()
            return
        current = pack_rng()
        self._passes.go_on(position, before_pass=lambda: unpack_rng(current), before_item=lambda: None)

    @property
    def _dataset(self) -> Any:
        return getattr(self._loader, "dataset", None)

    def _received(self, worker: int | None, state: WorkerState | None) -> None:
        if worker is not None and state is not None:
            self._workers[worker] = state

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batches handed out so far in this pass."""
        batches = self._batches()
        if batches is not None and batches.resumed is not None:
            return batches.resumed
        if self._before is None:
            return {"before": None}  # asked now, some loaders would begin a pass
        return {
            "before": self._before,
            "workers": {worker: {"rng": state.rng} for worker, state in self._workers.items()},
            "source": self._source.pack(),
            "position": self._passes.position(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from *state* at the next ``iter()``; which may also be a plain Lightning checkpoint's."""
        if "before" not in state:
            self._loader.load_state_dict(state)
        elif state["before"] is not None:
            self._to_resume = state

    def begin_reading(self) -> None:
        """Nothing to do: what the loader shares with a validation set is the loader's affair."""

    def end_state(self) -> dict[str, Any]:
        """Return the position at the end of a training, from which it may be given more passes."""
        state = self.state_dict()
        return state if self._before is None else {**state, "position": self._passes.end_position()}

    def begin_after(self, state: dict[str, Any]) -> None:
        """Begin, at the next ``iter()``, the pass that follows the one whose :meth:`end_state` *state* is."""
        if state["before"] is not None:
            self._source.load(state["source"])
            self._to_follow = state

    def followed_by(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return *state*, the position before the last batch, with the one after it, which tells how a pass begins."""
        return {**state, "position": {**state["position"], "next": self._passes.position()}}
