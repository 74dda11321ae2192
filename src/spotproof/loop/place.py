"""Where checkpoints go when the user does not say."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from spotproof.contract import CHECKPOINT_CONFIG_FILE, ENV_BASE_DIR, ENV_CHECKPOINT_DIR, ML_ROOT

__all__ = ["default_dirpath"]


def default_dirpath(env: Mapping[str, str]) -> str:
    """Return ``SM_CHECKPOINT_DIR``, else the LocalPath of SageMaker's checkpointconfig.json, else ``checkpoints``."""
    if env.get(ENV_CHECKPOINT_DIR):
        return env[ENV_CHECKPOINT_DIR]
    config = Path(env.get(ENV_BASE_DIR, ML_ROOT), CHECKPOINT_CONFIG_FILE)
    try:
        return str(json.loads(config.read_text())["LocalPath"])
    except (OSError, ValueError, KeyError, TypeError):
        return os.path.abspath("checkpoints")
