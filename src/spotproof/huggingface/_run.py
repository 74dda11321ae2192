"""The whole training of a Trainer as one stateful object."""

import dataclasses
import logging
import os
from typing import Any

import torch
from transformers.trainer_callback import ExportableState

from spotproof.checkpoint import RngState
from spotproof.checkpoint.generators import find_generators, load_generators, pack_generators
from spotproof.huggingface import _private as private

__all__ = ["TrainerRun"]

log = logging.getLogger(__name__)

_OF_STATE = (
    "epoch",
    "global_step",
    "num_input_tokens_seen",
    "total_flos",
    "best_metric",
    "best_global_step",
)
"""Of the TrainerState, what training changes; the rest follows from the arguments, which may be others now."""


class TrainerRun:
    """What training changes in a Trainer."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.epoch = 0
        self.update_step = 0
        """Optimizer steps that were done in this epoch."""
        self.is_at_end = False
        self._eval_loaders: dict[str, Any] = {}
        """Of evaluation sets whose loaders are kept, because their workers persist."""
        self._eval_positions: dict[str, Any] = {}
        """Where they stood, of those that were not made again yet."""

    def state_dict(self) -> dict[str, Any]:
        """Return it; tensors are the live ones."""
        trainer = self._trainer
        model, scaler = trainer.model, trainer.accelerator.scaler
        weights = model.state_dict()
        state = dataclasses.asdict(trainer.state)
        return {
            "model": weights,
            # Some models adapt these to what they see, such as the frequencies of a dynamic rotary embedding.
            "buffers": {name: buffer for name, buffer in model.named_buffers() if name not in weights},
            "optimizer": trainer.optimizer.state_dict(),
            "scheduler": trainer.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "state": {name: state[name] for name in _OF_STATE},
            "log_history": [_without_times(entry) for entry in trainer.state.log_history],
            "clocks": [_times(entry) for entry in trainer.state.log_history],
            "model_checkpoints": trainer.state.best_model_checkpoint,
            "totals": {name: getattr(trainer, name) for name in private.TOTALS},
            "stateful_callbacks": {name: _callback_state(callback) for name, callback in self._callbacks()},
            "loop": {"epoch": self.epoch, "update_step": self.update_step, "is_at_end": self.is_at_end},
            "data": trainer.fetches.position(in_pass=self.update_step > 0 and not self.is_at_end),
            "generators": [pack_generators(find_generators(part)) for part in self._parts_with_generators()],
            "evaluation": {
                **self._eval_positions,
                **{name: loader.end_state() for name, loader in self._eval_loaders.items()},
            },
            "rng": RngState().state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what :meth:`state_dict` returned; the Trainer has made all its parts by now, and fetched nothing."""
        trainer = self._trainer
        trainer.model.load_state_dict(state["model"])
        for name, buffer in trainer.model.named_buffers():
            if name in state["buffers"]:
                owner, _, attribute = name.rpartition(".")
                setattr(trainer.model.get_submodule(owner), attribute, state["buffers"][name].to(buffer.device))
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.lr_scheduler.load_state_dict(state["scheduler"])
        if state["scaler"] is not None and trainer.accelerator.scaler is not None:
            trainer.accelerator.scaler.load_state_dict(state["scaler"])
        for name in _OF_STATE:
            setattr(trainer.state, name, state["state"][name])
        untimed, times = state["log_history"], state["clocks"]
        trainer.state.log_history = [{**entry, **clocks} for entry, clocks in zip(untimed, times, strict=True)]
        trainer.state.best_model_checkpoint = best = state["model_checkpoints"]
        if best is not None and not os.path.isdir(best):
            log.warning("The best model, saved to %s before the interruption, is not there any more.", best)
            trainer.state.best_model_checkpoint = None
        for name, value in state["totals"].items():
            setattr(trainer, name, value.to(trainer.args.device) if isinstance(value, torch.Tensor) else value)
        callbacks = dict(self._callbacks())
        for name, saved in state["stateful_callbacks"].items():
            if name in callbacks:
                _restore_callback(callbacks[name], saved)
        loop = state["loop"]
        self.epoch, self.update_step, self.is_at_end = loop["epoch"], loop["update_step"], loop["is_at_end"]
        for part, packed in zip(self._parts_with_generators(), state["generators"], strict=True):
            load_generators(part, packed)
        self._eval_positions = dict(state["evaluation"])
        trainer.fetches.go_on(state["data"], state["rng"])
        RngState().load_state_dict(state["rng"])

    def add_eval_loader(self, name: str, loader: Any) -> None:
        """Keep the position of an evaluation loader whose workers persist, and put it where it stood."""
        self._eval_loaders[name] = loader
        position = self._eval_positions.pop(name, None)
        if position is not None:
            loader.begin_after(position)

    def _parts_with_generators(self) -> list[Any]:
        return [self._trainer.eval_dataset, self._trainer.data_collator]

    def _callbacks(self) -> list[tuple[str, Any]]:
        handler = self._trainer.callback_handler
        stateful = [callback for callback in handler.callbacks if _has_state(callback)]
        named = [(f"{index} {type(callback).__qualname__}", callback) for index, callback in enumerate(stateful)]
        return [*named, ("control", self._trainer.control)]

    @property
    def collator_with_generators(self) -> str | None:
        """What the data collator is called, if it draws from generators of its own."""
        collator = self._trainer.data_collator
        return type(collator).__qualname__ if _seeds_itself(collator) else None

    @property
    def forgotten_callbacks(self) -> list[str]:
        """The user's callbacks with attributes that no checkpoint holds."""
        return [
            type(callback).__qualname__
            for callback in self._trainer.callback_handler.callbacks
            if vars(callback) and not _has_state(callback) and not type(callback).__module__.startswith("transformers.")
        ]


def _seeds_itself(collator: Any) -> bool:
    return getattr(collator, "seed", None) is not None or bool(find_generators(collator))


def _times(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name.endswith(("_runtime", "_per_second"))}


def _without_times(entry: dict[str, Any]) -> dict[str, Any]:
    times = _times(entry)
    return {name: value for name, value in entry.items() if name not in times}


def _has_state(callback: Any) -> bool:
    return isinstance(callback, ExportableState) or hasattr(callback, "state_dict")


def _callback_state(callback: Any) -> dict[str, Any]:
    if hasattr(callback, "state_dict"):
        return {"state_dict": callback.state_dict()}
    state = callback.state()
    # TrainerControl keeps what changes among its arguments.
    attributes: dict[str, Any] = (
        {**state["args"], **state["attributes"]} if _is_control(callback) else state["attributes"]
    )
    return {"attributes": attributes}


def _restore_callback(callback: Any, saved: dict[str, Any]) -> None:
    if "state_dict" in saved:
        callback.load_state_dict(saved["state_dict"])
        return
    for name, value in saved["attributes"].items():
        setattr(callback, name, value)


def _is_control(callback: Any) -> bool:
    return type(callback).__name__ == "TrainerControl"
