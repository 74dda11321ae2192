"""The laptop side stays light: importing it loads neither torch nor boto3 nor Lightning."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "lightning", "boto3", "botocore", "obstore", "numpy", "moto")


@pytest.mark.parametrize(
    "module",
    [
        "spotproof",
        "spotproof.cli",
        "spotproof.checkpoint",
        "spotproof.container",
        "spotproof.storage",
        "spotproof.testing",
    ],
)
def test_nothing_heavy_is_loaded(module):
    """In a fresh interpreter."""
    program = f"import {module}, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_all_names_are_there():
    """What a room says it exports can be imported."""
    import spotproof
    import spotproof.checkpoint
    import spotproof.lightning
    import spotproof.loop
    import spotproof.testing

    for room in (spotproof, spotproof.checkpoint, spotproof.lightning, spotproof.loop, spotproof.testing):
        for name in room.__all__:
            assert getattr(room, name) is not None
