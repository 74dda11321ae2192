"""``SpotCLI``: Lightning's command line for jobs that are interrupted.

In: command line, ``trainer.yaml``, SageMaker's variables. Out: a training run that resumes by itself, and
``SM_MODEL_DIR/model.pt``.
"""

import inspect
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from spotproof.checkpoint.manifest import MANIFEST_REGEX
from spotproof.contract import ENV_CHECKPOINT_DIR, ENV_MODEL_DIR, ENV_OUTPUT_DATA_DIR
from spotproof.lightning.callback import SpotCheckpoint
from spotproof.lightning.export import BestWeights, copy_weights, write_weights

__all__ = ["LoggerOptions", "SaveConfigOnStart", "SpotCLI", "insert_subcommand"]

log = logging.getLogger(__name__)

_DEFAULT_SUBCOMMAND = "fit"
_DEFAULT_MODEL_DIR = "model"
_ENV_HOSTS = "SM_HOSTS"


@dataclass
class LoggerOptions:
    """Where TensorBoard's files go."""

    save_dir: str | None = None
    """Folder; by default ``tensorboard`` in SageMaker's checkpoint directory, for that alone survives a reclaim, and
    the trainer's root directory elsewhere."""
    name: str = "lightning_logs"
    """Folder of this experiment in save_dir."""
    version: int | str | None = None
    """Folder of this run in the experiment's; by default the next free version_N."""
    flush_secs: int = 120
    """Seconds after which what was logged is written."""


class SaveConfigOnStart(SaveConfigCallback):
    """Save the configuration beside the logs, once a resumed run knows which folder is its own."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().setup(trainer, pl_module, "fit")


class SpotCLI(LightningCLI):
    """A ``LightningCLI`` whose ``fit`` survives interruptions; used, and configured, in the same way.

    - The subcommand may be left out and is then ``fit``: SageMaker passes options only.
    - A :class:`SpotCheckpoint` is added (``--spot.every_n_steps=50``, ``--spot.dirpath=…``), unless
      ``trainer.callbacks`` has one, and ``fit`` goes on from its newest checkpoint, unless ``--ckpt_path`` names
      another. It replaces the ``ModelCheckpoint`` that Lightning adds by itself; those that are configured stay.
    - ``--logger.save_dir``, ``--logger.name``, ``--logger.version`` and ``--logger.flush_secs`` configure TensorBoard,
      unless ``trainer.logger`` is given.
    - At the end of ``fit`` the weights of the best validation, by the ``monitor`` of the first ``ModelCheckpoint`` that
      has one, are written to ``model.pt`` in ``SM_MODEL_DIR``, or in ``model`` where that is not set; without a monitor
      the final weights. A run that leaves because of a notice writes none.
    - The seed is 0 if nothing else is said: with a random one no two runs could be compared.

    Example::

        SpotCLI(MyModel, MyData, parser_kwargs=SpotCLI.configured_by(Path(__file__).with_name("trainer.yaml")))
    """

    spot: SpotCheckpoint | None
    """The callback that saves; None for subcommands other than ``fit``."""
    best: BestWeights | None
    """The callback that keeps the best weights; None if nothing is monitored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.spot = None
        self.best = None
        given = inspect.signature(LightningCLI).bind_partial(*args, **kwargs).arguments
        if "save_config_callback" not in given:
            kwargs["save_config_callback"] = SaveConfigOnStart
        if "save_config_kwargs" not in given:
            # A resumed run writes into the folder of its predecessor, where the configuration lies already.
            kwargs["save_config_kwargs"] = {"overwrite": True}
        if "seed_everything_default" not in given:
            kwargs["seed_everything_default"] = 0
        super().__init__(*args, **kwargs)

    @classmethod
    def configured_by(cls, *files: str | os.PathLike[str]) -> dict[str, Any]:
        """Return the ``parser_kwargs`` that take defaults from *files*, for every subcommand; a later one wins.

        A file that does not exist is left out, as jsonargparse does. The command line wins over all of them.
        """
        paths = [os.fspath(file) for file in files]
        return {subcommand: {"default_config_files": paths} for subcommand in cls.subcommands()}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        # The subcommands' parsers bring descriptions of their own.
        kwargs.setdefault(
            "description", "Train through interruptions. Without a subcommand, the options are those of fit."
        )
        return super().init_parser(**kwargs)

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        self._has_subcommands = add_subcommands
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_core_arguments_to_parser(parser)
        parser.add_class_arguments(SpotCheckpoint, "spot", instantiate=False)
        parser.add_class_arguments(LoggerOptions, "logger", instantiate=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        if self._has_subcommands:
            if args is None:
                # Replaced for good: Lightning starts the processes of further devices with the same sys.argv.
                sys.argv[1:] = insert_subcommand(sys.argv[1:], self.subcommands())
            elif isinstance(args, Mapping):
                if "subcommand" not in args and not args.keys() & self.subcommands().keys():
                    args = {"subcommand": _DEFAULT_SUBCOMMAND, _DEFAULT_SUBCOMMAND: args}
            elif isinstance(args, list):
                args = insert_subcommand(args, self.subcommands())
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        # Lightning looks for the model's options in the file, which for ours is a manifest, no pickle.
        path = (self.config.get(_DEFAULT_SUBCOMMAND) or {}).get("ckpt_path") if self._has_subcommands else None
        if path is None or not MANIFEST_REGEX.fullmatch(os.fspath(path).rpartition("/")[2]):
            super()._parse_ckpt_path()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        callbacks = _as_list(config.get("callbacks"))
        # What the program itself adds is not in the configuration, but counts as the user's.
        others = [
            *_as_list(self.trainer_defaults.get("callbacks")),
            *(self._get(self.config_init, key) for key in self._parser(self.subcommand).callback_keys),
        ]
        if self.subcommand in (None, _DEFAULT_SUBCOMMAND):
            if config.get("enable_checkpointing") is None:
                # Lightning's default would write the whole state once an epoch into the logs, and nobody would read it.
                kwargs["enable_checkpointing"] = any(isinstance(c, Checkpoint) for c in [*callbacks, *others])
            callbacks += self._build_callbacks([*callbacks, *others])
        kwargs["callbacks"] = callbacks
        kwargs["logger"] = self._build_logger(config)
        if config.get("default_root_dir") is None and os.environ.get(ENV_OUTPUT_DATA_DIR):
            kwargs["default_root_dir"] = os.environ[ENV_OUTPUT_DATA_DIR]
        if config.get("enable_progress_bar") is None and not sys.stdout.isatty():
            kwargs["enable_progress_bar"] = any(isinstance(c, ProgressBar) for c in [*callbacks, *others])
        hosts = json.loads(os.environ.get(_ENV_HOSTS) or "[]")
        if len(hosts) > 1 and config.get("num_nodes", 1) == 1:
            kwargs["num_nodes"] = len(hosts)
        return super().instantiate_trainer(**kwargs)

    def _build_callbacks(self, existing: Sequence[Callback]) -> list[Callback]:
        """Return what is to be added to the *existing* callbacks."""
        added: list[Callback] = []
        monitored = next((c for c in existing if isinstance(c, ModelCheckpoint) and c.monitor), None)
        if monitored is not None and monitored.monitor:
            self.best = BestWeights(monitored.monitor, "max" if monitored.mode == "max" else "min")
            added.append(self.best)
        self.spot = next((c for c in existing if isinstance(c, SpotCheckpoint)), None)
        if self.spot is None:
            self.spot = SpotCheckpoint(**vars(self._get(self.config, "spot")))
            added.append(self.spot)
        _place_model_checkpoints(existing, str(self.spot.dirpath))
        return added

    def _build_logger(self, config: Mapping[str, Any]) -> Any:
        given = config.get("logger")
        if given is not None and given is not True:
            return given
        options = self._get(self.config, "logger")
        checkpoints = os.environ.get(ENV_CHECKPOINT_DIR)
        root = config.get("default_root_dir") or os.getcwd()
        save_dir = options.save_dir or (str(Path(checkpoints, "tensorboard")) if checkpoints else str(root))
        logger: Logger
        try:
            logger = TensorBoardLogger(
                save_dir, name=options.name, version=options.version, flush_secs=options.flush_secs
            )
        except ModuleNotFoundError:
            # As the Trainer does by default; training must not fail for want of a viewer's format.
            log.warning("TensorBoard is not installed: metrics go to CSV files in %s.", save_dir)
            logger = CSVLogger(save_dir, name=options.name, version=options.version)
        return logger

    def fit(self, model: Any, **kwargs: Any) -> None:
        """Train from the newest checkpoint, or from the beginning, and write the best weights."""
        if kwargs.get("ckpt_path") is None and self.spot is not None:
            kwargs["ckpt_path"] = self.spot.latest()
        self.trainer.fit(model, **kwargs)
        self.export()

    def export(self) -> None:
        """Write the best weights to ``model.pt``, on the first rank; for programs that run with ``run=False``, too.

        Does nothing after a run that did not come to its end, or was a ``fast_dev_run``.
        """
        if self.trainer.interrupted or getattr(self.trainer, "fast_dev_run", False):
            return
        if self.best is not None and self.best.weights is not None:
            weights, what = self.best.weights, f"the weights of {self.best.monitor}={self.best.score}"
        else:
            if self.best is not None:
                log.warning("%s was never logged: the final weights are exported.", self.best.monitor)
            weights, what = copy_weights(self.trainer.strategy.lightning_module_state_dict()), "the final weights"
        if self.trainer.is_global_zero:
            place = write_weights(os.environ.get(ENV_MODEL_DIR) or _DEFAULT_MODEL_DIR, weights)
            log.info("Wrote %s to %s.", what, place)


def insert_subcommand(words: Sequence[str], subcommands: Iterable[str]) -> list[str]:
    """Return the command line *words* with ``fit`` in front, unless they name a subcommand or only ask for help.

    Options before the subcommand are the main parser's: ``-h`` and ``--config FILE``.
    """
    names = set(subcommands)
    position = 0
    while position < len(words) and words[position] not in names:
        word = words[position]
        if word in ("-h", "--help") and len(words) == 1:
            return list(words)
        if word in ("-c", "--config"):
            position += 2
        elif word.startswith("--config="):
            position += 1
        else:
            return [_DEFAULT_SUBCOMMAND, *words]
    return list(words) if position < len(words) else [_DEFAULT_SUBCOMMAND, *words]


def _place_model_checkpoints(callbacks: Iterable[Callback], dirpath: str) -> None:
    """Let ``ModelCheckpoint`` callbacks without a place of their own write below the checkpoint directory.

    Their default follows the logger's version folder. Here they have one that is the same in each attempt, which is
    also what makes them accept their own state when it comes back.
    """
    if "://" in dirpath:
        return
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = os.path.realpath(os.path.join(dirpath, "best"))


def _as_list(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
