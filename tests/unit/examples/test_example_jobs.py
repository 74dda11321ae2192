"""The example's job files are valid, and the program takes every hyperparameter in them."""

from pathlib import Path

import pytest
import train
import yaml
from datamodules import CIFAR10DataModule, DigitsDataModule
from resnet import ResNetClassifier

from spotproof.container.arguments import build_arguments, decode_hyperparameters
from spotproof.spec import JobSpec, hyperparameter_text, parse_job_spec, read_job_spec

EXAMPLE = Path(train.__file__).parent


def read_job(name: str) -> JobSpec:
    """Read a job file without asking for the data that it uploads."""
    return parse_job_spec(yaml.safe_load((EXAMPLE / name).read_text()), source=name)


@pytest.mark.parametrize(
    ("name", "data_class", "in_channels"), [("job.yaml", CIFAR10DataModule, 3), ("digits.yaml", DigitsDataModule, 1)]
)
def test_the_program_takes_the_job_s_hyperparameters(name, data_class, in_channels, tmp_path, monkeypatch):
    """Sent as strings and turned into arguments as in the container, they configure what they should."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    job = read_job(name)
    sent = {key: hyperparameter_text(value) for key, value in job.hyperparameters.items()}

    cli = train.TrainCLI(
        ResNetClassifier,
        train.ImageDataModule,
        **train.CLI_OPTIONS,
        args=build_arguments(decode_hyperparameters(sent)),
        run=False,
    )

    assert type(cli.datamodule) is data_class
    assert cli.model.net.stem[0].in_channels == in_channels
    assert cli.model.net.stem[0].out_channels == job.hyperparameters["model.width"]
    assert cli.trainer.max_epochs == job.hyperparameters["trainer.max_epochs"]
    assert cli.trainer.logger.name == job.hyperparameters["logger.name"]


def test_the_demo_s_job_needs_nothing_else():
    """The demo's job is complete as it lies there: its code, its entrypoint, and no data to fetch."""
    job = read_job_spec(EXAMPLE / "digits.yaml")

    assert job.source_dir == EXAMPLE
    assert (EXAMPLE / job.entrypoint[-1]).is_file()
    assert job.inputs == {}
