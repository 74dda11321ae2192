"""The whole training as one stateful object: what Lightning saves, and what it forgets."""

import logging
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from spotproof.checkpoint import RngState
from spotproof.checkpoint.tree import TreeEncoder
from spotproof.errors import CheckpointDamaged, UnsafeState
from spotproof.lightning import _private as private
from spotproof.lightning._attributes import ChangedAttributes

__all__ = ["BeforeFetch", "LightningRun", "logger_versions"]

log = logging.getLogger(__name__)


def logger_versions(trainer: "pl.Trainer") -> list[Any]:
    """Return for each logger the version whose folder a resumed run must go on writing to, or None."""
    return [logger.version if isinstance(logger, TensorBoardLogger) else None for logger in trainer.loggers]


@dataclass(frozen=True, slots=True)
class BeforeFetch:
    """What fetching a batch changes, as it was before: a fetch that is interrupted leaves it anywhere."""

    loaders: list[dict[str, Any]]
    rng: dict[str, Any]


class LightningRun:
    """The training of one trainer."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.between = "batches"
        self.attributes: ChangedAttributes | None = None
        self.before_fetch: BeforeFetch | None = None
        """Set while a save is made out of an interrupted fetch."""
        self._warned: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        fetch = self.before_fetch
        checkpoint = private.dump_checkpoint(self.trainer, fetch.loaders if fetch else None)
        self._leave_out_unsafe_hparams(checkpoint)
        checkpoint["spotproof"] = {
            "between": self.between,
            "rng": fetch.rng if fetch else RngState().state_dict(),
            "run": private.run_state(self.trainer),
            "attributes": self.attributes.state_dict() if self.attributes is not None else {},
            "loggers": logger_versions(self.trainer),
        }
        return checkpoint

    def _leave_out_unsafe_hparams(self, checkpoint: dict[str, Any]) -> None:
        """Drop hyperparameters that can't be stored safely: a resume does not need them, the script makes them anew."""
        checkpoint.pop("hparams_type", None)
        for part in ("hyper_parameters", "datamodule_hyper_parameters"):
            kept = {}
            for name, value in dict(checkpoint.get(part, {})).items():
                try:
                    TreeEncoder().encode(value, f"{part}/{name}")
                    kept[name] = value
                except UnsafeState:
                    if name not in self._warned:
                        self._warned.add(name)
                        log.info("Hyperparameter %s (%s) is not kept in checkpoints.", name, type(value).__qualname__)
            if part in checkpoint:
                checkpoint[part] = kept

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise CheckpointDamaged(
            "A Lightning training is not restored through the Checkpointer.", do="Use fit(ckpt_path=spot.latest())."
        )
