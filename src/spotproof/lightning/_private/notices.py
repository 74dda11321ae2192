"""Calls where a notice is acted on between two safe points.

Source: lightning 2.6.6, ``loops/training_epoch_loop.py``, ``loops/fetchers.py``.
"""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.fetchers import _DataLoaderIterDataFetcher

from spotproof.lightning._private.around import around

__all__ = ["NoticeHooks", "handlers_to_restore", "let_go_of_fetchers"]


class NoticeHooks:
    """Puts calls where a notice is acted on between two safe points: around each fetch, and around validation.

    Install it after :class:`FitHooks`, whose ``advance`` and ``on_run_start`` it goes around.
    """

    def __init__(
        self,
        trainer: "pl.Trainer",
        *,
        before_fetch: Callable[[], None],
        after_fetch: Callable[[], None],
        before_validation: Callable[[], None],
        before_owed_validation: Callable[[], None],
        on_woken: Callable[[], None],
        wake: type[BaseException],
    ) -> None:
        self._epoch_loop: Any = trainer.fit_loop.epoch_loop
        self._val_loop: Any = trainer.fit_loop.epoch_loop.val_loop
        self._before_fetch, self._after_fetch = before_fetch, after_fetch
        self._before_validation = before_validation
        self._before_owed_validation = before_owed_validation
        self._on_woken, self._wake = on_woken, wake
        self._fetches_between_steps = False
        self.owes_validation = False
        """Whether the loops were loaded from a checkpoint made after a batch and before the validation that follows."""
        self._install()

    def _install(self) -> None:
        advance, advance_end = self._epoch_loop.advance, self._epoch_loop.on_advance_end
        start = self._epoch_loop.on_run_start

        def advance_until_woken(data_fetcher: Any) -> None:
            # With dataloader_iter the step itself fetches, so that its work is half done then.
            self._fetches_between_steps = not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
            try:
                advance(data_fetcher)
            except self._wake:
                self._on_woken()
                raise

        def end_with_validation(data_fetcher: Any) -> None:
            if not self._epoch_loop._skip_next_val and self._epoch_loop._should_check_val_fx(data_fetcher):
                self._before_validation()
            try:
                advance_end(data_fetcher)
            except self._wake:
                self._on_woken()
                raise

        def start_with_owed_validation(data_fetcher: Any) -> None:
            start(data_fetcher)
            if not self.owes_validation:
                return
            self.owes_validation = False
            self._before_owed_validation()
            self._val_loop.restarting = False
            # Due when the checkpoint was made; a time trigger would not say so again.
            self._epoch_loop._should_check_val_fx = lambda data_fetcher: True
            try:
                advance_end(data_fetcher)
            finally:
                del self._epoch_loop._should_check_val_fx
            self._epoch_loop.on_iteration_done()

        around(self._epoch_loop, "_on_before_fetch", after=self._fetch_begins)
        around(self._epoch_loop, "_on_after_fetch", before=self._after_fetch)
        around(self._val_loop, "_on_before_fetch", after=self._before_fetch)
        around(self._val_loop, "_on_after_fetch", before=self._after_fetch)
        self._epoch_loop.advance = advance_until_woken
        self._epoch_loop.on_advance_end = end_with_validation
        self._epoch_loop.on_run_start = start_with_owed_validation

    def _fetch_begins(self) -> None:
        if self._fetches_between_steps:
            self._before_fetch()

    def remove(self) -> None:
        """Leave the loops as they were."""
        for loop, names in (
            (self._epoch_loop, ("advance", "on_advance_end", "on_run_start", "_on_before_fetch", "_on_after_fetch")),
            (self._val_loop, ("_on_before_fetch", "_on_after_fetch")),
        ):
            for name in names:
                vars(loop).pop(name, None)


def let_go_of_fetchers(trainer: "pl.Trainer") -> None:
    """Let go of a fetcher whose loaders were just being started: Lightning fails when it tears it down."""
    for loop in (trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop):
        if loop._combined_loader is not None and loop._combined_loader._iterator is None:
            loop._data_fetcher = None


def handlers_to_restore(trainer: "pl.Trainer") -> dict[int, Any]:
    """Return the signal handlers, by number, that Lightning puts back when it is done; may be changed."""
    handlers: dict[int, Any] = trainer._signal_connector._original_handlers
    return handlers
