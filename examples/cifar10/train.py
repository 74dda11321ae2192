"""Train ResNet-18 on CIFAR-10, or on handwritten digits, wherever it may be interrupted.

    python train.py --data=DigitsDataModule --trainer.max_epochs=2
    python train.py --data=CIFAR10DataModule --data.data_dir=/path/to/folder --model.width=16
    spotproof rehearse digits.yaml --reclaim step:100,step:250

Defaults come from trainer.yaml; `python train.py fit --help` shows every option.
"""

import logging
from pathlib import Path

from datamodules import ImageDataModule
from lightning.pytorch.cli import LightningArgumentParser
from resnet import ResNetClassifier

from spotproof.lightning import SpotCLI


class TrainCLI(SpotCLI):
    """The command line; the model takes from the data what it must know of it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the model's options to the data."""
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.in_channels", "model.in_channels", apply_on="instantiate")


CLI_OPTIONS = {
    "subclass_mode_data": True,
    "parser_kwargs": TrainCLI.configured_by(Path(__file__).with_name("trainer.yaml")),
}


def main() -> None:
    """Parse the command line and run what it says."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    TrainCLI(ResNetClassifier, ImageDataModule, **CLI_OPTIONS)


if __name__ == "__main__":
    main()
