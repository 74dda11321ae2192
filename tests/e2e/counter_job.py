"""A tiny job without torch, and the command that rehearses it."""

import os
import subprocess
import sys
from pathlib import Path

import spotproof

SOURCE = str(Path(spotproof.__file__).parents[1])
"""Named absolutely: a relative PYTHONPATH means something else in another working directory."""
COUNTER = Path(__file__).parent / "counter"
JOB = """\
name: counter
image_uri: counter:latest
role: arn:aws:iam::123456789012:role/Train
instance_type: ml.m5.large
use_spot_instances: true
max_run: 600
max_wait: 1200
checkpoint_s3_uri: s3://counter-bucket/run/checkpoints
output_path: s3://counter-bucket/run/output
inputs:
  training: data.txt
source_dir: {source}
entrypoint: train.py
hyperparameters:
  steps: 40
"""


def rehearse(job: Path, *arguments: str, timeout_seconds: float = 280) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "spotproof", "rehearse", str(job), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, env=environment())


def environment() -> dict[str, str]:
    """AWS settings of the developer's own, which a rehearsal must not use."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    kept["PYTHONPATH"] = SOURCE
    return {**kept, "AWS_PROFILE": "no-such-profile", "AWS_SESSION_TOKEN": "secret", "COLUMNS": "100"}
