"""Lightning's CheckpointIO, with our checkpoints added: ``fit(ckpt_path=spot.latest())`` reads them."""

import os
from collections.abc import Callable
from typing import Any

from lightning.fabric.plugins.io import CheckpointIO

from spotproof.checkpoint.manifest import MANIFEST_REGEX
from spotproof.lightning._files import KnownFiles

__all__ = ["SpotCheckpointIO"]


class SpotCheckpointIO(CheckpointIO):
    """Reads ``step-NNNNNNNNNN.json`` through *read*, and leaves every other path to *base*."""

    def __init__(self, base: CheckpointIO, read: Callable[[str], dict[str, Any]]) -> None:
        self.base = base
        self._read = read
        self.files: KnownFiles | None = None
        """Told of each file that is written or removed."""

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the checkpoint at *path*; ours is verified and never runs code, whatever *weights_only* says."""
        if MANIFEST_REGEX.fullmatch(os.fspath(path).rpartition("/")[2]):
            return self._read(os.fspath(path))
        return self.base.load_checkpoint(path, map_location=map_location, weights_only=weights_only)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save as *base* does."""
        self.base.save_checkpoint(checkpoint, path, storage_options)
        if self.files is not None:
            self.files.saved(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove as *base* does."""
        self.base.remove_checkpoint(path)
        if self.files is not None:
            self.files.removed(path)

    def teardown(self) -> None:
        """End *base*."""
        self.base.teardown()
