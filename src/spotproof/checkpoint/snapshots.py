"""Copies of all registered objects at one step: what training stands still for."""

import gc
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from spotproof.checkpoint.stage import StagedState, Stager
from spotproof.checkpoint.tree import TreeEncoder
from spotproof.checkpoint.unchanging import Unchanging

__all__ = ["Snapshots", "Stateful"]

_MAX_COLD_BYTES = 16 * 2**20
"""New buffers up to here are made while training stands still."""


class Stateful(Protocol):
    """PyTorch's own protocol: modules, optimizers, schedulers and loaders have it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Snapshots:
    """Takes them, into buffers that are kept: each is valid until the next is taken."""

    def __init__(self, statefuls: Mapping[str, Stateful], unchanging: Unchanging) -> None:
        """Take them of *statefuls*, by name, to which more may be added."""
        self._statefuls = statefuls
        self._stager = Stager(unchanging)
        self._preparation: threading.Thread | None = None
        self.is_deferred = False
        """Whether the last one was not taken, for the sake of its buffers."""

    @property
    def is_preparing(self) -> bool:
        """Whether buffers are being made, so that none can be taken."""
        return self._preparation is not None and self._preparation.is_alive()

    def wait(self, timeout: float | None) -> None:
        """Return when no buffers are being made, or after *timeout* seconds."""
        if self._preparation is not None:
            self._preparation.join(timeout)

    def take(self, *, copy_all: bool = False) -> StagedState:
        """Return a copy of the state; with *copy_all* one that needs nothing of the live tensors any more.

        Raises:
            UnsafeState: A state could not be read back safely; names where and which type.
        """
        staged = self._taken(may_defer=False, copy_all=copy_all)
        assert staged is not None
        return staged

    def take_or_defer(self) -> StagedState | None:
        """Return a copy as :meth:`take` does; or, if much of it has no buffer yet, begin to make buffers in a thread
        and return None."""
        return self._taken(may_defer=True, copy_all=False)

    def _taken(self, *, may_defer: bool, copy_all: bool) -> StagedState | None:
        began = time.perf_counter()
        collects = gc.isenabled()
        # The trees are thousands of small objects that live for milliseconds. Counted, they would set off a full
        # collection within the stall: some 200 ms in a process that has imported torch and Lightning.
        gc.disable()
        try:
            encoder = TreeEncoder()
            trees = {name: encoder.encode(s.state_dict(), name) for name, s in self._statefuls.items()}
            is_cold = may_defer and self._stager.cold_bytes(encoder.tensors) > _MAX_COLD_BYTES
            if not copy_all:  # that one is taken to be held, and does not stand for one that is to be written
                self.is_deferred = is_cold
            if is_cold:
                prepare = self._stager.prepare(encoder.tensors)
                self._preparation = threading.Thread(target=prepare, name="spotproof-prepare", daemon=True)
                self._preparation.start()
                return None
            return self._stager.stage(trees, encoder.tensors, began=began, copy_all=copy_all)
        finally:
            if collects:
                gc.enable()
