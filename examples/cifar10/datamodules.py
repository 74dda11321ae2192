"""The images that the example learns from: CIFAR-10, or scikit-learn's handwritten digits, which need no download."""

import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from cifar_archive import ARCHIVE_NAME, NUM_CLASSES, Images, download_archive, read_archive
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from spotproof.errors import SpecError

_CHANNEL = "SM_CHANNEL_TRAINING"


class Collate:
    """A list of (image, label) -> a normalised, if asked augmented batch.

    It runs where the batch is made, so in the loader's worker if there is one, and works on the whole batch at once.
    Its chances come from torch's own generator, as in any other script: making them repeatable is Spotproof's task.
    """

    def __init__(self, *, mean: tuple[float, ...], std: tuple[float, ...], crop_padding: int, has_flips: bool) -> None:
        self._mean = torch.tensor(mean).view(1, -1, 1, 1)
        self._std = torch.tensor(std).view(1, -1, 1, 1)
        self._crop_padding = crop_padding
        self._has_flips = has_flips

    def __call__(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return (batch, channels, height, width) float32 and (batch,) int64."""
        images = torch.stack([image for image, _ in samples])
        labels = torch.stack([label for _, label in samples])
        if self._crop_padding:
            images = random_crop(images, self._crop_padding)
        if self._has_flips:
            flipped = torch.rand(len(images)) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
        return (images.float() / 255 - self._mean) / self._std, labels


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Return each of *images* moved by up to *padding* pixels in both directions, black where it left."""
    count, channels, height, width = images.shape
    padded = functional.pad(images, [padding] * 4)
    tops = torch.randint(2 * padding + 1, (count, 1))
    lefts = torch.randint(2 * padding + 1, (count, 1))
    rows = (tops + torch.arange(height)).view(count, 1, height, 1)
    columns = (lefts + torch.arange(width)).view(count, 1, 1, width)
    image = torch.arange(count).view(count, 1, 1, 1)
    channel = torch.arange(channels).view(1, channels, 1, 1)
    return padded[image, channel, rows, columns]


class ImageDataModule(LightningDataModule):
    """Loaders for a set of small labelled images."""

    num_classes: ClassVar[int]
    in_channels: ClassVar[int]
    _mean: ClassVar[tuple[float, ...]]
    _std: ClassVar[tuple[float, ...]]
    _crop_padding: ClassVar[int]
    _has_flips: ClassVar[bool]

    def __init__(
        self,
        batch_size: int = 32,
        num_workers: int = 0,
        train_subset: int | None = None,
        val_subset: int | None = None,
        augment: bool = True,
    ) -> None:
        """Set up.

        Args:
            batch_size: Images a step.
            num_workers: Processes that prepare batches; 0 prepares them in the training process.
            train_subset: Train on the first so many images only.
            val_subset: Validate on the first so many images only.
            augment: Move (and mirror, where that makes sense) the training images at random.
        """
        super().__init__()
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._train_subset = train_subset
        self._val_subset = val_subset
        self._augment = augment

    def load_images(self) -> tuple[Images, Images]:
        """Return the images to train on and those to validate on."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Read the images once."""
        if self._batch_size < 1:
            raise SpecError(f"data.batch_size={self._batch_size} is too small.", do="Use 1 or more.")
        if not hasattr(self, "_train"):
            train, val = self.load_images()
            self._train = _dataset(train, self._train_subset, "data.train_subset")
            self._val = _dataset(val, self._val_subset, "data.val_subset")

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches."""
        # Batch norm cannot normalise a single image that has shrunk to one pixel. Each process gets an equal share.
        num_processes = self.trainer.world_size if self.trainer is not None else 1
        is_single = -(-len(self._train) // num_processes) % self._batch_size == 1
        return self._loader(self._train, is_augmented=self._augment, shuffle=True, drop_last=is_single)

    def val_dataloader(self) -> DataLoader:
        """Return batches in their order, never augmented."""
        return self._loader(self._val, is_augmented=False)

    def test_dataloader(self) -> DataLoader:
        """Return the validation images: there is one held-out set."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Return the validation images."""
        return self.val_dataloader()

    def _loader(
        self, dataset: Dataset, *, is_augmented: bool, shuffle: bool = False, drop_last: bool = False
    ) -> DataLoader:
        collate = Collate(
            mean=self._mean,
            std=self._std,
            crop_padding=self._crop_padding if is_augmented else 0,
            has_flips=self._has_flips and is_augmented,
        )
        return DataLoader(
            dataset,
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            shuffle=shuffle,
            drop_last=drop_last,
            collate_fn=collate,
        )


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 from its original archive: 50,000 + 10,000 colour images of 32×32 pixels in 10 classes."""

    num_classes = NUM_CLASSES
    in_channels = 3
    _mean = (0.4914, 0.4822, 0.4465)
    _std = (0.2470, 0.2435, 0.2616)
    _crop_padding = 4
    _has_flips = True

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        train_subset: int | None = None,
        val_subset: int | None = None,
        augment: bool = True,
        download: bool = False,
    ) -> None:
        """Set up.

        Args:
            data_dir: Folder of cifar-10-python.tar.gz; by default SageMaker's channel "training", else "data".
            batch_size: Images a step.
            num_workers: Processes that prepare batches; 0 prepares them in the training process.
            train_subset: Train on the first so many images only.
            val_subset: Validate on the first so many images only.
            augment: Move and mirror the training images at random.
            download: Fetch the archive if it is not there.
        """
        super().__init__(batch_size, num_workers, train_subset, val_subset, augment)
        self._archive = Path(data_dir or os.environ.get(_CHANNEL) or "data", ARCHIVE_NAME)
        self._download = download

    def prepare_data(self) -> None:
        """Fetch the archive if it is absent and that was asked for."""
        if self._download and not self._archive.exists():
            download_archive(self._archive)

    def load_images(self) -> tuple[Images, Images]:
        """Return the five training batches and the test batch."""
        return read_archive(self._archive)


class DigitsDataModule(ImageDataModule):
    """Handwritten digits that come with scikit-learn: 1,437 + 360 grey images of 8×8 pixels."""

    num_classes = 10
    in_channels = 1
    _mean = (0.3053,)
    _std = (0.3763,)
    _crop_padding = 1
    _has_flips = False  # a mirrored 2 is no 2

    def load_images(self) -> tuple[Images, Images]:
        """Return the first four fifths and the last fifth, which other people wrote."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = (digits.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
        labels = digits.target.astype(np.int64)
        split = len(labels) * 4 // 5
        return Images(pixels[:split], labels[:split]), Images(pixels[split:], labels[split:])


def _dataset(images: Images, subset: int | None, option: str) -> TensorDataset:
    count = len(images.labels)
    if subset is not None and not 1 <= subset <= count:
        raise SpecError(f"{option}={subset} is impossible.", why=f"There are {count} images.", do=f"Use 1 to {count}.")
    return TensorDataset(torch.from_numpy(images.pixels[:subset]), torch.from_numpy(images.labels[:subset]))
