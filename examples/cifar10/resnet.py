"""ResNet-18 for small images, and its training.

The network of He et al. (2015) with the usual change for CIFAR: a 3×3 stem without pooling, so that a 32×32 image
keeps its size until the second stage.
"""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

STAGE_WIDTHS = (1, 2, 4, 8)
"""Channels of the four stages, in units of the width."""


def conv3x3(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    """Return a convolution that keeps the size, but for its stride; the batch norm behind it has the bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, stride=1)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> (batch, out_channels, height / stride, width / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """(batch, in_channels, height, width) float -> (batch, num_classes) logits."""

    def __init__(self, width: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv3x3(in_channels, width, stride=1), nn.BatchNorm2d(width), nn.ReLU())
        stages: list[nn.Module] = []
        channels = width
        for number, factor in enumerate(STAGE_WIDTHS):
            first = BasicBlock(channels, width * factor, stride=1 if number == 0 else 2)
            channels = width * factor
            stages.append(nn.Sequential(first, BasicBlock(channels, channels, stride=1)))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.stages(self.stem(images)))


class ResNetClassifier(LightningModule):
    """ResNet-18 that learns to tell classes of images apart."""

    def __init__(self, width: int = 64, in_channels: int = 3, num_classes: int = 10) -> None:
        """Build the network.

        Args:
            width: Channels of the first stage. 64 is the paper's; 8 to 16 make it trainable on a laptop.
            in_channels: Colours of the images; taken from the data.
            num_classes: Classes to tell apart; taken from the data.
        """
        super().__init__()
        self.net = ResNet18(width, in_channels, num_classes)
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (batch, num_classes)."""
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        images, labels = batch
        logits = self(images)
        loss = functional.cross_entropy(logits, labels)
        self.train_acc(logits, labels)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy."""
        images, labels = batch
        logits = self(images)
        self.val_acc(logits, labels)
        self.log("val_loss", functional.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Do as in validation: the archive has one held-out set, which the article validates on."""
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the most likely class of each image, (batch,) int64."""
        return torch.argmax(self(batch[0]), dim=1)
