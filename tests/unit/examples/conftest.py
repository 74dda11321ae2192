"""The example's modules, importable as its own scripts import them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples/cifar10"))
