"""The whole training as one stateful object: what Lightning saves, and what it forgets."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spotproof.checkpoint import RngState
from spotproof.checkpoint.buckets import BucketOrder
from spotproof.checkpoint.tree import TreeEncoder
from spotproof.errors import CheckpointDamaged, UnsafeState
from spotproof.lightning import _private as private
from spotproof.lightning._attributes import ChangedAttributes
from spotproof.lightning._files import KnownFiles
from spotproof.lightning._loggers import LoggersOfRun

__all__ = ["BeforeFetch", "LightningRun"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BeforeFetch:
    """What fetching a batch changes, as it was before: a fetch that is interrupted leaves it anywhere."""

    positions: private.Positions | None
    rng: dict[str, Any]


class LightningRun:
    """The training of one trainer."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._names: frozenset[str] | None = None
        self.trainer: Any = None
        self.between = "batches"
        self.attributes: ChangedAttributes | None = None
        self.files: KnownFiles | None = None
        self.loggers: LoggersOfRun | None = None
        self.buckets: BucketOrder | None = None
        self._before_loaders: dict[str, dict[str, Any]] = {}
        self.before_fetch: BeforeFetch | None = None
        """Set while a save is made out of an interrupted fetch."""
        self._warned: set[str] = set()
        self._num_saves = 0

    def state_dict(self) -> dict[str, Any]:
        fetch = self.before_fetch
        at_end = self.between == "end"
        positions = fetch.positions if fetch else private.positions(self.trainer, at_end=at_end)
        checkpoint = private.dump_checkpoint(self.trainer, positions)
        self._leave_out_unsafe_hparams(checkpoint)
        self._tell_late_parts(checkpoint["state_dict"])
        self._tell_lost()
        checkpoint["spotproof"] = {
            "between": self.between,
            "rng": fetch.rng if fetch else RngState().state_dict(),
            "fetch": {"combined": positions.combined, "rng": positions.rng} if positions else {"combined": {}},
            "validation": private.validation_states(self.trainer),
            "run": private.run_state(self.trainer),
            "attributes": self.attributes.state_dict() if self.attributes is not None else {},
            "loggers": self.loggers.states() if self.loggers is not None else [],
            "model_checkpoints": {
                "files": self.files.state_dict() if self.files is not None else {},
                "memories": private.file_memories(self.trainer),
            },
            "before_loaders": self._before_loaders,
            "found": private.found(self.trainer),
            "clocks": private.clocks(self.trainer),
            "buckets": self.buckets.state_dict() if self.buckets is not None else None,
        }
        return checkpoint

    def before_loaders(self, stage: str, resumed: dict[str, Any] | None) -> None:
        """Note what a hook that makes loaders may look at or draw from; of a resumed run, as it was for its loaders."""
        before = resumed["before_loaders"].get(stage) if resumed is not None and resumed["between"] != "end" else None
        if before is not None and self.attributes is not None:
            self.attributes.load_plain(before["attributes"])
            RngState().load_state_dict(before["rng"])
        attributes = self.attributes.plain() if self.attributes is not None else {}
        self._before_loaders[stage] = {"attributes": attributes, "rng": RngState().state_dict()}

    def restore(self, resumed: dict[str, Any], own_weights: dict[str, Any] | None) -> None:
        """Put everything where a run stood, by its part of :meth:`state_dict` that Lightning does not know.

        Args:
            resumed: That part.
            own_weights: This rank's, where the ranks' differ.
        """
        private.restore_averages(self.trainer)
        if own_weights is not None:
            private.restore_weights(self.trainer, own_weights)
        if self.buckets is not None and resumed.get("buckets") is not None:
            self.buckets.load_state_dict(resumed["buckets"])
        self.restore_attributes(resumed)
        private.restore_run_state(self.trainer, resumed["run"])
        private.restore_file_memories(self.trainer, resumed["model_checkpoints"]["memories"])
        private.restore_clocks(self.trainer, resumed["clocks"])
        RngState().load_state_dict(resumed["rng"])

    def restore_attributes(self, resumed: dict[str, Any]) -> None:
        """Set the attributes alone: all that is left to set of a training that had ended."""
        if self.attributes is not None:
            self.attributes.load_state_dict(resumed["attributes"])

    def _tell_late_parts(self, weights: dict[str, Any]) -> None:
        """A resume makes the model anew, and Lightning refuses weights that it has no place for then."""
        names = frozenset(weights)
        if self._names is None:
            self._names = names
        elif late := sorted(names - self._names):
            self._names = names
            some = ", ".join(late[:3]) + (", …" if len(late) > 3 else "")
            self._warn(
                f"The model got new parts after training began ({some}). "
                "A resume can't load them into the model that the script makes then. Make them in __init__, setup or "
                "configure_model."
            )

    def _tell_lost(self) -> None:
        """Look at the first save, the second, the fourth and so on: it takes as long as saving the attributes does."""
        self._num_saves += 1
        if self._num_saves & (self._num_saves - 1):
            return
        for place, what in self.attributes.lost() if self.attributes is not None else ():
            if place not in self._warned:
                self._warned.add(place)
                self._warn(
                    f"{place} can't be saved: it is {what}. After a resume it is as the script makes it. Hold numbers, "
                    "texts, tensors, named tuples or dataclasses, or give what holds it state_dict and load_state_dict."
                )

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
