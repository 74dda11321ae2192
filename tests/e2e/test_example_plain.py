"""The example as a plain script: trained at one go, and killed and started again, it writes the same model."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples/cifar10"
PROGRESS = re.compile(r"\[spotproof\] attempt=(\d+) epoch=(\d+) step=(\d+)")
# 10 steps an epoch. "Best" is the highest loss, so that the best epoch is an early one, trained before the last kill.
CALLBACKS = """
trainer:
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {monitor: val_loss, mode: max, enable_version_counter: false}
"""
OPTIONS = [
    "--config=callbacks.yaml",
    "--data=DigitsDataModule",
    "--data.train_subset=320",
    "--data.val_subset=64",
    "--model.width=4",
    "--trainer.max_epochs=4",
    "--spot.every_n_steps=4",
]


def start(folder: Path, checkpoints: Path, *launcher: str) -> subprocess.Popen[str]:
    """Start the example in *folder*, by *launcher* if one is given; it prints a line each step."""
    folder.mkdir()
    (folder / "callbacks.yaml").write_text(CALLBACKS)
    return subprocess.Popen(
        [sys.executable, *launcher, str(EXAMPLE / "train.py"), *OPTIONS],
        cwd=folder,
        env={
            **os.environ,
            "SM_CHECKPOINT_DIR": str(checkpoints),
            "SM_MODEL_DIR": str(folder / "model"),
            "SAGEMAKER_BASE_DIR": str(folder / "ml"),
            "SPOTPROOF_PROGRESS_SECONDS": "0",
            "OMP_NUM_THREADS": "1",  # a small net on cores that other tests use, too
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_at(process: subprocess.Popen[str], step: int) -> int:
    """SIGKILL the process when it tells *step*; return the first step that it told."""
    first = None
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line)
        if found := PROGRESS.search(line):
            told = int(found[3])
            first = told if first is None else first
            if told >= step:
                process.kill()
                break
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, f"it ended before step {step}:\n{''.join(output)}"
    assert first is not None
    return first


def finish(process: subprocess.Popen[str]) -> str:
    """Return the output of a process that comes to its end."""
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of an undisturbed run, and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    output = finish(start(folder, folder / "checkpoints"))
    return folder, output


def test_the_model_is_plain(undisturbed):
    """The exported file is weights and nothing else, and they are those of a ResNet-18."""
    folder, output = undisturbed

    weights = torch.load(folder / "model/model.pt", weights_only=True)

    assert type(weights) is dict
    assert all(type(name) is str and type(value) is torch.Tensor for name, value in weights.items())
    assert weights["net.stem.0.weight"].shape == (4, 1, 3, 3)
    assert "Wrote the weights of val_loss=" in output


def test_logs_and_configuration_lie_where_they_survive(undisturbed):
    """With a checkpoint directory, TensorBoard's files and the configuration are in it."""
    folder, _ = undisturbed
    logs = folder / "checkpoints/tensorboard/cifar10/version_0"

    assert (logs / "config.yaml").is_file()
    assert list(logs.glob("events.out.tfevents.*"))


def test_killed_twice(undisturbed, tmp_path):
    """Killed within two epochs, with nothing left but its checkpoints, it writes the same model to the last bit."""
    checkpoints = tmp_path / "checkpoints"

    assert kill_at(start(tmp_path / "first", checkpoints), 7) <= 1
    shutil.rmtree(checkpoints / "best", ignore_errors=True)  # not yet uploaded, say
    resumed_at = kill_at(start(tmp_path / "second", checkpoints), 27)
    shutil.rmtree(checkpoints / "best")
    output = finish(start(tmp_path / "third", checkpoints))

    assert resumed_at in (0, 4), "it went on from a checkpoint of the first attempt"
    told = [int(found[3]) for found in PROGRESS.finditer(output)]
    assert 16 <= min(told) <= 27
    assert not (tmp_path / "second/model").exists()
    folder, _ = undisturbed
    assert (tmp_path / "third/model/model.pt").read_bytes() == (folder / "model/model.pt").read_bytes()
    assert [path.name for path in (checkpoints / "tensorboard/cifar10").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_notice_in_a_container(tmp_path):
    """SIGTERM to the container: the program saves the step it is at and leaves, with neither a model nor a failure."""
    process = start(tmp_path / "run", tmp_path / "checkpoints", "-m", "spotproof.container")
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if (found := PROGRESS.search(line)) and int(found[3]) >= 5:
            break

    process.send_signal(signal.SIGTERM)
    output += process.communicate(timeout=60)[0]

    assert process.returncode == 143, output
    last = max(int(found[3]) for found in PROGRESS.finditer(output))
    assert f"step-{last:010d}.json" in [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert not (tmp_path / "run/model").exists()
    assert not (tmp_path / "run/ml/output/failure").exists()


def test_the_best_epoch_lies_before_the_last_kill(undisturbed):
    """The test above would prove little if the best epoch were trained after the last resume."""
    _, output = undisturbed
    folder, _ = undisturbed
    best = [path.name for path in (folder / "checkpoints/best").iterdir()]

    assert best in (["epoch=0-step=10.ckpt"], ["epoch=1-step=20.ckpt"]), output
