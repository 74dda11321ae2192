"""Where a job's TensorBoard files are, by all that its description and its events say."""

from typing import Any

import pytest

from spotproof.events import LoggerOpened
from spotproof.report import boards_of

JOB: dict[str, Any] = {
    "TrainingJobName": "job",
    "CheckpointConfig": {"S3Uri": "s3://b/run/checkpoints/"},
    "TensorBoardOutputConfig": {"S3OutputPath": "s3://b/boards"},
}
MIRRORED = "s3://b/run/checkpoints/"
OUTPUT = "s3://b/boards/job/tensorboard-output/"


def urls(hyperparameters: dict[str, str], *events: LoggerOpened, **fields: Any) -> list[str]:
    return [board.url for board in boards_of({**JOB, "HyperParameters": hyperparameters, **fields}, events)]


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("logger.save_dir", "s3://c/logs", "s3://c/logs/"),
        ("logger.save_dir", '"s3://c/logs"', "s3://c/logs/"),
        ("trainer.logger.init_args.save_dir", "/opt/ml/checkpoints/tb", MIRRORED + "tb/"),
        ("logger.save_dir", "$SM_CHECKPOINT_DIR/tb", MIRRORED + "tb/"),
        ("logger.save_dir", "/opt/ml/output/tensorboard/x", OUTPUT + "x/"),
        ("logger.save_dir", "/opt/ml/checkpoints", MIRRORED),
    ],
)
def test_a_save_dir_comes_first(name: str, value: str, place: str):
    """As the SDK writes it, too; a folder that is mirrored counts as its mirror."""
    assert urls({name: value})[0] == place


def test_without_a_word_the_mirrored_places():
    """TensorBoardOutputConfig before the checkpoints; a folder that nobody mirrors is gone with its machine."""
    assert urls({"logger.save_dir": "/tmp/logs", "my_save_dirs": "s3://no"}) == [OUTPUT, MIRRORED]
    assert urls({}, CheckpointConfig={}, TensorBoardOutputConfig={}) == []


def test_what_the_logger_said_beats_all():
    """It knows the very folder; another place is not listed twice."""
    said = LoggerOpened(attempt=0, logger="TensorBoardLogger", folder="/opt/ml/checkpoints/tb/run/version_3")
    assert urls({}, said, said) == [MIRRORED + "tb/run/version_3/", OUTPUT, MIRRORED]


def test_other_local_paths():
    """Of the checkpoints, and of TensorBoard's output."""
    config = {
        "CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/mine"},
        "TensorBoardOutputConfig": {"S3OutputPath": "s3://b/t/", "LocalPath": "/opt/ml/board"},
    }
    assert urls({"logger.save_dir": "/opt/ml/mine/x"}, **config)[0] == "s3://b/c/x/"
    assert urls({"logger.save_dir": "/opt/ml/board"}, **config)[0] == "s3://b/t/job/tensorboard-output/"
