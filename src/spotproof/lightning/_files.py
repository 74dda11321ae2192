"""The files that ``ModelCheckpoint`` would find if the attempts so far had been one undisturbed run.

It looks on the disk whether a name is taken, and then takes ``…-v1``. After an interruption the disk is ahead of the
checkpoint that is resumed from, or behind it where a platform delivers files late: names would change. So a checkpoint
of ours says which files there were, and that is what ModelCheckpoint is told.
"""

import os
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["KnownFiles"]


class KnownFiles:
    """The files of all ModelCheckpoints of a trainer, as a stateful object."""

    def __init__(self, trainer: "pl.Trainer") -> None:
        """Look what is there now, and answer in the disk's place from here on."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._callbacks = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
        self._folders = sorted({str(callback.dirpath) for callback in self._callbacks})
        self._paths = {path for folder in self._folders for path in _files_in(folder)}
        for callback in self._callbacks:
            callback.file_exists = self._exists  # type: ignore[method-assign]

    def _exists(self, filepath: Any, trainer: "pl.Trainer") -> bool:
        path = os.fspath(filepath)
        # Links are made past the CheckpointIO.
        is_there = path in self._paths or any(path == callback.last_model_path for callback in self._callbacks)
        # Rank 0 alone writes, and so knows; as in Lightning's own.
        found: bool = trainer.strategy.reduce_boolean_decision(is_there and trainer.is_global_zero, all=False)
        return found

    def saved(self, path: Any) -> None:
        """Note a file that was written."""
        self._paths.add(os.fspath(path))

    def removed(self, path: Any) -> None:
        """Note a file that was removed."""
        self._paths.discard(os.fspath(path))

    def state_dict(self) -> dict[str, Any]:
        """Return the files there are, by folder."""
        return {
            folder: sorted(path[len(folder) :] for path in self._paths if path.startswith(folder))
            for folder in self._folders
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what :meth:`state_dict` returned, for the folders that are still in use."""
        for folder in self._folders:
            if folder in state:
                self._paths = {path for path in self._paths if not path.startswith(folder)}
                self._paths.update(folder + name for name in state[folder])

    def remove(self) -> None:
        """Let the disk answer again."""
        for callback in self._callbacks:
            vars(callback).pop("file_exists", None)


def _files_in(folder: str) -> list[str]:
    filesystem = get_filesystem(folder)
    if not filesystem.exists(folder):
        return []
    prefix = folder.partition("://")[0] + "://" if "://" in folder else ""
    found = [prefix + path for path in filesystem.find(folder)]
    return [path for path in found if path.endswith(ModelCheckpoint.FILE_EXTENSION)]
