"""Calls between two batches, and positions in the training data.

Why at all: Lightning offers no hook between two batches (``on_train_batch_start`` comes after the batch was fetched and
counted, ``on_train_batch_end`` before validation, schedulers and counters are done), resets epoch metrics on a
resume, and replays validation or skips scheduler updates by guessing from counters where it stood. A checkpoint taken
exactly between two batches, with nothing half done, needs no guessing.

Source: lightning 2.6.6, ``loops/fit_loop.py``, ``loops/training_epoch_loop.py``.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher
from lightning.pytorch.loops.training_epoch_loop import RestartStage
from torch.utils.data import DataLoader

from spotproof.checkpoint import RngState
from spotproof.checkpoint.resumable import ResumableDataLoader, restore_settings, resumable_loader, settings_state
from spotproof.checkpoint.rng import pack_rng, unpack_rng
from spotproof.lightning._private.around import around

__all__ = [
    "FitHooks",
    "Positions",
    "batches_that_stepped",
    "begin_reading_now",
    "data_without_position",
    "dump_checkpoint",
    "is_between_optimizer_steps",
    "logged_steps",
    "positions",
    "saved_positions",
    "validation_states",
]


class FitHooks:
    """Puts calls between the batches, after the training, and where the loaders are ready but not started."""

    def __init__(
        self,
        trainer: "pl.Trainer",
        *,
        before_batch: Callable[[], None],
        after_training: Callable[[], None],
        before_loaders: Callable[[str], None],
        on_order_mismatch: Callable[[str], None],
    ) -> None:
        self._trainer = trainer
        self._fit_loop: Any = trainer.fit_loop
        self._epoch_loop: Any = trainer.fit_loop.epoch_loop
        self._num_sanity_val_steps = trainer.num_sanity_val_steps
        self._before_batch = before_batch
        self._after_training = after_training
        self._before_loaders = before_loaders
        self._on_order_mismatch = on_order_mismatch
        self.positions: Positions | None = None
        """Where to go on in the training data, until training starts."""
        self.rng_of_finished_run: dict[str, Any] | None = None
        """Generator states to set before the loaders start, if a finished run is given more epochs."""
        self.validation_states: list[dict[str, Any] | None] | None = None
        """States of the validation loaders, until they are there."""
        self.is_resuming = False
        """Whether the loops were loaded from a checkpoint made between two batches."""
        self._install()

    def _install(self) -> None:
        advance, start, end = self._epoch_loop.advance, self._epoch_loop.on_run_start, self._fit_loop.on_run_end

        def advance_after_call(data_fetcher: Any) -> None:
            self._before_batch()
            advance(data_fetcher)

        def start_without_restart(data_fetcher: Any) -> None:
            start(data_fetcher)
            if self.is_resuming:
                # Nothing is half done, so there is nothing to restart. Left on, Lightning would skip validations and
                # plateau schedulers of the epoch and count a step twice.
                self._fit_loop._restarting = False
                self._epoch_loop.restarting = False
                self.is_resuming = False

        def end_with_call() -> None:
            end()
            self._after_training()

        around(self._fit_loop, "setup_data", before=self._before_train_loaders)
        around(self._epoch_loop, "update_restart_stage", after=self._nothing_is_half_done)
        self._epoch_loop.advance = advance_after_call
        self._epoch_loop.on_run_start = start_without_restart
        self._fit_loop.on_run_end = end_with_call
        self._fit_loop._load_combined_loader_states = self._prepare_loaders
        val_loop = self._epoch_loop.val_loop
        around(val_loop, "setup_data", before=self._before_val_loaders, after=self._prepare_validation)

    def _before_train_loaders(self) -> None:
        if self._fit_loop._combined_loader is None or self._fit_loop._should_reload_train_dl:
            self._before_loaders("train")

    def _before_val_loaders(self) -> None:
        val_loop = self._epoch_loop.val_loop
        if val_loop._combined_loader is None or val_loop._should_reload_val_dl:
            self._before_loaders("validation")

    def _nothing_is_half_done(self) -> None:
        # Lightning guesses from counters, which batches that were skipped or None have set apart.
        if self.is_resuming:
            self._epoch_loop._restart_stage = RestartStage.RESTARTED_ON_LAST

    def skip_sanity_check(self) -> None:
        """Leave out the sanity check, as Lightning does where an epoch is unfinished: it was made in the first attempt,
        and workers that persist would draw from it on."""
        self._trainer.num_sanity_val_steps = 0

    def remove(self) -> None:
        """Leave the loops as they were."""
        self._trainer.num_sanity_val_steps = self._num_sanity_val_steps
        for loop, name in (
            (self._epoch_loop, "advance"),
            (self._epoch_loop, "on_run_start"),
            (self._epoch_loop, "update_restart_stage"),
            (self._fit_loop, "on_run_end"),
            (self._fit_loop, "setup_data"),
            (self._fit_loop, "_load_combined_loader_states"),
            (self._epoch_loop.val_loop, "setup_data"),
        ):
            vars(loop).pop(name, None)

    def _prepare_loaders(self) -> None:
        combined = self._fit_loop._combined_loader
        combined.flattened = [resumable_loader(loader, self._on_order_mismatch) for loader in combined.flattened]
        positioning = _positioned(combined, self._fit_loop)
        if self.rng_of_finished_run is not None:
            for loader, state in zip(
                combined.flattened, self.positions.loaders if self.positions else (), strict=False
            ):
                loader.begin_after(state)
            RngState().load_state_dict(self.rng_of_finished_run)
        elif self.positions is not None:
            positioning.go_on(self.positions)
        else:  # a plain Lightning checkpoint, or none
            type(self._fit_loop)._load_combined_loader_states(self._fit_loop)

    def _prepare_validation(self) -> None:
        combined = self._epoch_loop.val_loop._combined_loader
        if combined is None:
            return
        # Workers that persist draw on from one validation to the next.
        combined.flattened = [
            resumable_loader(loader) if isinstance(loader, DataLoader) and loader.persistent_workers else loader
            for loader in combined.flattened
        ]
        states, self.validation_states = self.validation_states, None
        for loader, state in zip(combined.flattened, states or (), strict=False):
            if state is None or not isinstance(loader, DataLoader):
                continue
            if isinstance(loader, ResumableDataLoader) and "before" in state:
                loader.begin_after(state)
            else:
                restore_settings(loader, state)


def begin_reading_now(trainer: "pl.Trainer") -> None:
    """Set the generators of the training data to where the resumed pass goes on, before validation uses them, too."""
    for loader in trainer.fit_loop._combined_loader.flattened if trainer.fit_loop._combined_loader else []:
        loader.begin_reading()


@dataclass(frozen=True, slots=True)
class Positions:
    """Where a training stands in its data, with what the loaders are combined to."""

    loaders: list[dict[str, Any]]
    combined: dict[str, Any]
    """Of the iterator over all of them."""
    rng: bytes | None = None
    """The generators before the last fetch, if that batch has not been trained on and is to be fetched again."""


class _Positioning:
    """Knows where a CombinedLoader stands, and puts it there.

    From loaders without a length Lightning fetches one batch ahead, to know which is the last. That batch is lost with
    the process, so the position to save is the one before it was fetched.
    """

    def __init__(self, combined: Any, fit_loop: Any) -> None:
        self._combined = combined
        self._fit_loop = fit_loop
        self._before_fetch: Positions | None = None
        self._to_resume: Positions | None = None
        self._rng_to_fetch_with: bytes | None = None

    def go_on(self, positions: Positions) -> None:
        """Go on at *positions*, at the next ``iter()``."""
        for loader, state in zip(self._combined.flattened, positions.loaders, strict=False):
            loader.load_state_dict(state)
        self._to_resume = positions

    def positions(self, *, at_end: bool = False) -> Positions:
        """Return where the training stands, cut off from what the loaders do from here on."""
        before = self._before_fetch
        if at_end:
            return Positions([loader.end_state() for loader in self._combined.flattened], {})
        if before is None or not getattr(self._fit_loop._data_fetcher, "batches", None):
            return self._positions_now()
        loaders = [
            loader.followed_by(state) if hasattr(loader, "followed_by") and state["before"] is not None else state
            for loader, state in zip(self._combined.flattened, before.loaders, strict=True)
        ]
        return replace(before, loaders=loaders)

    def _positions_now(self) -> Positions:
        iterator = vars(self._combined._iterator) if self._combined._iterator is not None else {}
        combined = {name: copy.copy(iterator[name]) for name in _OF_COMBINED if name in iterator}
        return Positions([loader.state_dict() for loader in self._combined.flattened], combined)

    def begun(self) -> None:
        """Put the iterator over the loaders, which was just made, to the position to go on from."""
        positions, self._to_resume, self._before_fetch = self._to_resume, None, None
        if positions is not None:
            self._rng_to_fetch_with = positions.rng
            vars(self._combined._iterator).update(positions.combined)

    def before_fetch(self) -> None:
        """Note how things are, if what is fetched now may be lost."""
        rng, self._rng_to_fetch_with = self._rng_to_fetch_with, None
        if rng is not None:
            unpack_rng(rng)
        fetcher = self._fit_loop._data_fetcher
        if isinstance(fetcher, _PrefetchDataFetcher) and fetcher.length is None:
            self._before_fetch = replace(self._positions_now(), rng=pack_rng())


_OF_COMBINED = ("_idx", "_consumed")
"""What Lightning's iterators over several loaders remember."""


def _positioned(combined: Any, fit_loop: Any) -> _Positioning:
    """Give *combined* a position. It becomes an object of another class, because the fit loop holds it already."""
    if "_spotproof" not in vars(combined):
        kind = type(combined)

        class Positioned(kind):  # type: ignore[misc, valid-type]
            def __iter__(self) -> Any:
                super().__iter__()
                self._spotproof.begun()
                return self

            def __next__(self) -> Any:
                self._spotproof.before_fetch()
                return super().__next__()

            def _state_dicts(self) -> Any:
                return self._spotproof.positions().loaders

        Positioned.__name__, Positioned.__qualname__ = kind.__name__, kind.__qualname__
        combined.__class__ = Positioned
    combined._spotproof = _Positioning(combined, fit_loop)
    return combined._spotproof  # type: ignore[no-any-return]


def positions(trainer: "pl.Trainer", *, at_end: bool = False) -> Positions | None:
    """Return where the training stands in its data, or None if it has none yet."""
    combined: Any = trainer.fit_loop._combined_loader
    return combined._spotproof.positions(at_end=at_end) if hasattr(combined, "_spotproof") else None


def validation_states(trainer: "pl.Trainer") -> list[dict[str, Any] | None]:
    """Return for each validation loader what its next pass depends on."""
    combined: Any = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    return [
        (loader.end_state() if isinstance(loader, ResumableDataLoader) else settings_state(loader))
        if isinstance(loader, DataLoader)
        else None
        for loader in (combined.flattened if combined is not None else ())
    ]


def dump_checkpoint(trainer: "pl.Trainer", positions: Positions | None) -> dict[str, Any]:
    """Return what Lightning itself would save now, with these positions; tensors are the live ones."""
    combined: Any = trainer.fit_loop._combined_loader
    if positions is None:
        return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    combined._state_dicts = lambda: positions.loaders
    try:
        return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    finally:
        del combined._state_dicts


def saved_positions(checkpoint: dict[str, Any]) -> Positions:
    """Return the positions that a checkpoint of ours holds."""
    states: list[dict[str, Any]] = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
    return Positions(states, **checkpoint["spotproof"]["fetch"])


def batches_that_stepped(checkpoint: dict[str, Any]) -> int:
    """Return the step under which the next metrics will be logged."""
    step: int = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    return step


def logged_steps(trainer: "pl.Trainer") -> int:
    """Return the step under which the next metrics would be logged."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def data_without_position(trainer: "pl.Trainer") -> list[str]:
    """Return the types of the training data that a resume reads again to find its place."""
    combined = trainer.fit_loop._combined_loader
    loaders = combined.flattened if combined is not None else []
    return [loader.kind_of_data for loader in loaders if loader.reads_again]


def is_between_optimizer_steps(trainer: "pl.Trainer") -> bool:
    """Whether no gradients wait for the rest of their accumulation."""
    return not trainer.fit_loop._should_accumulate()
