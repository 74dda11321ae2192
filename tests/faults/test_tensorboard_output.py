"""TensorBoardOutputConfig on the platform: a job that is reclaimed twice is one curve.

To the `spotproof tensorboard` that was looking all the time, and to TensorBoard's own reader afterwards.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from board_reader import Board
from local_rig import open_rig, statuses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # torch and Lightning start four times

# The points behind the newest checkpoint have come to S3 when the machine goes: these must not be seen twice.
SCRIPT = """
import lightning as L, torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset
from spotproof.lightning import SpotCheckpoint

BOARD = BASE / "output/tensorboard"
WAITS = os.environ.get("WAITS", "").split()

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = (self.layer(batch[0]) - batch[1]).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def on_train_batch_start(self, batch, batch_idx):
        step = self.global_step
        if f"{step}" in WAITS and not (CHECKPOINTS / f"waited-{step}").exists():
            save(f"waited-{step}", "")
            wait_uploaded(f"waited-{step}")
            self.logger.experiment.flush()
            print("WAITS AT", step, flush=True)
            time.sleep(600)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)

spot = SpotCheckpoint(every_n_steps=5, every_n_seconds=None)
L.seed_everything(1)
data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
logger = TensorBoardLogger(BOARD, name="")
trainer = L.Trainer(
    max_epochs=2, logger=logger, callbacks=[spot], log_every_n_steps=1, enable_progress_bar=False,
    enable_model_summary=False, accelerator="cpu", deterministic=True,
)
trainer.fit(Net(), DataLoader(data, batch_size=4, shuffle=True), ckpt_path=spot.latest())
"""


@pytest.fixture
def rig(tmp_path, s3_server, monkeypatch):
    with open_rig(tmp_path, s3_server, monkeypatch, capacity_wait_seconds=0) as opened:
        yield opened


@pytest.fixture
def showing(rig):
    """Return a function that starts `spotproof tensorboard JOB` as a user does; gives what it says of itself."""
    processes = []

    def show(job):
        command = [sys.executable, "-m", "spotproof", "tensorboard", job, "--port", "0", "--json"]
        environment = {**os.environ, **rig.platform.environment()}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")

    yield show
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def create(rig, name, **changes):
    boards = f"s3://{rig.bucket}/boards"
    limits = {"MaxRuntimeInSeconds": 3000, **({"MaxWaitTimeInSeconds": 6000} if changes.get("spot", True) else {})}
    rig.create(name, SCRIPT, TensorBoardOutputConfig={"S3OutputPath": boards}, StoppingCondition=limits, **changes)
    return f"{boards}/{name}/tensorboard-output/"


def losses(place):
    """Return the points that TensorBoard's reader has of what lies at *place*."""
    return Board(place).curves.get("version_0/train_loss", [])


def shown(url):
    """Return the points that a running TensorBoard shows; there is one run."""
    runs = ask(url, "data/runs")
    if not runs:
        return []  # it has read nothing yet
    (run,) = runs
    points = ask(url, f"data/plugin/scalars/scalars?tag=train_loss&run={run}")
    return [(step, value) for _, step, value in points or []]


def ask(url, what):
    try:
        with urllib.request.urlopen(url + what) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        return None


def wait_points(read, is_so):
    """Return what *read* gives once *is_so* holds of it."""
    deadline = time.monotonic() + 60
    while not is_so(points := read()):
        assert time.monotonic() < deadline, [step for step, _ in points]
        time.sleep(0.2)
    return points


def test_a_job_that_was_reclaimed_twice_is_one_curve(rig, showing):
    """Points behind the newest checkpoint are in S3, and on the screen, when the machine goes: none is seen twice, and
    none is missing."""
    base = create(rig, "base", spot=False)
    assert rig.wait("base", 300)["TrainingJobStatus"] == "Completed", rig.lines("base")
    expected = losses(base)
    assert [step for step, _ in expected] == list(range(32))

    place = create(rig, "board", Environment={"WAITS": "8 19"})
    rig.wait_line("board", "WAITS AT 8", patience_seconds=300)
    wait_points(lambda: losses(place), lambda points: len(points) == 8)
    said = showing("board")
    assert said["folder"].startswith(place)
    assert said["known_by"]
    wait_points(lambda: shown(said["url"]), lambda points: len(points) == 8)
    rig.ask("reclaim", TrainingJobName="board")
    rig.wait_line("board", "WAITS AT 19", patience_seconds=300)
    wait_points(lambda: shown(said["url"]), lambda points: len(points) == 19)
    rig.ask("reclaim", TrainingJobName="board")
    assert rig.wait("board", 300)["TrainingJobStatus"] == "Completed", rig.lines("board")

    assert statuses(rig.describe("board")).count("Interrupted") == 2
    assert losses(place) == expected
    assert wait_points(lambda: shown(said["url"]), lambda points: len(points) >= 32) == expected
