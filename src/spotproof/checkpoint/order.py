"""Exact order of map-style data: the loader's indices are drawn again, and batches handed out are skipped as indices.

Saved are the generators' states before the pass, the number of batches handed out, and each worker's generator states
after its last of these, which workers send along with their batches. A running hash of the indices tells whether the
drawn order is really the same.
"""

import copy
from typing import TYPE_CHECKING, Any

from spotproof.checkpoint.batches import Batches
from spotproof.checkpoint.passes import has_state
from spotproof.checkpoint.resumable import OnMismatch, ResumableDataLoader
from spotproof.checkpoint.tracked_sampler import TrackedSampler
from spotproof.checkpoint.worker_state import Skippable, WorkerState

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

__all__ = ["ResumableOrder"]


class ResumableOrder(ResumableDataLoader):
    """A DataLoader over map-style data, resumed by its order."""

    def _prepare(self, loader: "DataLoader[Any]", on_mismatch: OnMismatch | None) -> None:
        super()._prepare(loader, on_mismatch)
        self._has_said = False
        self._order = TrackedSampler(loader._index_sampler, self._on_mismatch)

    @property
    def _index_sampler(self) -> TrackedSampler:
        return self._order

    def _begin(self, leading: int, state: dict[str, Any] | None) -> Batches:
        self._order.start_pass()
        if state is not None:
            self._order.resume(state, leading)
        asks_for_nothing = leading and (not self._auto_collation or hasattr(self.dataset, "__getitems__"))
        inner = self._make_iterator(Skippable(self.dataset) if asks_for_nothing else self.dataset, leading)
        return Batches(
            inner,
            self._received,
            self._ended,
            self.source,
            from_workers=self.num_workers > 0,
            resumed=state,
            before_first=None if state is None else lambda: self._restore_dataset(state),
        )

    def _iterator_after(self, state: dict[str, Any]) -> Batches:
        # Where workers persist, a pass after the first asks the sampler once; here they are started on the way.
        self._order.ignores_next_iter = self.persistent_workers
        return super()._iterator_after(state)

    def _restore_dataset(self, state: dict[str, Any]) -> None:
        if state["data"] is not None and has_state(self.dataset):
            self.dataset.load_state_dict(copy.deepcopy(state["data"]))
        self._say(self.source.load(state["source"]))

    def _say(self, said: str) -> None:
        if said and not self._has_said:
            self._has_said = True
            self._on_mismatch(
                f"{self.kind_of_data} can't go on drawing as it did: {said}. Make it in __init__, or in worker_init_fn."
            )

    def _of_other_workers(self, state: dict[str, Any]) -> dict[str, Any]:
        return state  # the order is drawn in the main process

    def _received(self, worker: int | None, state: WorkerState | None) -> None:
        if worker is not None and state is not None:
            self._workers[worker] = state
            self._say(state.said)
        self._order.consumed_one()

    def _state_dict(self) -> dict[str, Any]:
        order = self._order.state_dict()
        return {
            **super()._state_dict(),
            "data": copy.deepcopy(self.dataset.state_dict()) if has_state(self.dataset) else None,
            "next_worker": order["consumed"] % self.num_workers if self.num_workers else 0,  # torch deals in turn
            **order,
        }
