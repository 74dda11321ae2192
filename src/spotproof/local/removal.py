"""Removing what a job may have made hard to remove."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["remove_tree"]

_log = logging.getLogger(__name__)


def remove_tree(path: Path) -> None:
    """Remove *path* and all below it, also what the job made unwritable. Say so in the log if something stays."""

    def make_writable(function: Callable[..., Any], name: str, _: Any) -> None:
        if not os.path.lexists(name):
            return
        try:
            os.chmod(os.path.dirname(name), 0o700)
            if not os.path.islink(name):  # a link of the job's leads anywhere
                os.chmod(name, 0o700)
            function(name)
        except OSError as error:
            _log.warning("%s could not be removed: %s", name, error)

    if path.exists():
        shutil.rmtree(path, onerror=make_writable)
