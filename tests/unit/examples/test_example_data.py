"""The example's images: how they are augmented, split and found."""

import pytest
import torch
from datamodules import CIFAR10DataModule, DigitsDataModule, random_crop
from resnet import ResNet18
from test_cifar_archive import write_archive

from spotproof.errors import SpecError


def test_crop_moves_each_image_by_itself():
    """Every cropped image is the padded one seen through a window, and all places of the window occur."""
    torch.manual_seed(0)
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    padded = torch.zeros(5, 5, dtype=torch.uint8)
    padded[1:4, 1:4] = image
    windows = [padded[top : top + 3, left : left + 3] for top in range(3) for left in range(3)]

    cropped = random_crop(image.expand(200, 2, 3, 3), 1)

    seen = set()
    for one in cropped:
        assert torch.equal(one[0], one[1]), "all colours move together"
        seen.add(next(number for number, window in enumerate(windows) if torch.equal(window, one[0])))
    assert seen == set(range(9))


def test_digits():
    """The digits are split by writers, shuffled for training only, and augmented for training only."""
    data = DigitsDataModule(batch_size=100, train_subset=250, val_subset=50)
    data.setup("fit")

    assert [len(labels) for _, labels in data.train_dataloader()] == [100, 100, 50]
    (first, labels), (again, _) = next(iter(data.val_dataloader())), next(iter(data.val_dataloader()))
    assert first.shape == (50, 1, 8, 8)
    assert (first.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(first, again)


def test_without_augmentation_images_come_as_they_are():
    """``data.augment=false`` leaves the order as the only chance."""
    data = DigitsDataModule(batch_size=2000, augment=False)
    data.setup("fit")

    def rows():
        images, _ = next(iter(data.train_dataloader()))
        return sorted(map(tuple, images.flatten(1).tolist()))

    assert rows() == rows()


def test_a_rest_of_one_image_is_dropped():
    """Batch norm can't normalise one image of one pixel; any other rest is trained on."""
    for subset, batches in ((33, 1), (34, 2), (32, 1)):
        data = DigitsDataModule(batch_size=32, train_subset=subset)
        data.setup("fit")
        assert len(data.train_dataloader()) == batches


@pytest.mark.parametrize("subset", [0, 1438])
def test_impossible_subset(subset):
    """A subset larger than the set, or empty, names the option and its limits."""
    with pytest.raises(SpecError, match=r"data\.train_subset=.*Use 1 to 1437"):
        DigitsDataModule(train_subset=subset).setup("fit")


def test_impossible_batch_size():
    """A batch of nothing is refused before anything is read."""
    with pytest.raises(SpecError, match="batch_size=0"):
        DigitsDataModule(batch_size=0).setup("fit")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_cifar_from_sagemaker_s_channel(tmp_path, monkeypatch, num_workers):
    """Without data_dir the archive is read from the channel "training", and augmented where the batch is made."""
    write_archive(tmp_path / "cifar-10-python.tar.gz")
    monkeypatch.setenv("SM_CHANNEL_TRAINING", str(tmp_path))
    data = CIFAR10DataModule(batch_size=15, num_workers=num_workers)
    data.prepare_data()
    data.setup("fit")

    torch.manual_seed(1)
    images, _ = next(iter(data.train_dataloader()))
    torch.manual_seed(1)
    same, _ = next(iter(data.train_dataloader()))
    torch.manual_seed(2)
    other, _ = next(iter(data.train_dataloader()))

    assert images.shape == (15, 3, 32, 32)
    assert torch.equal(images, same)
    assert not torch.equal(images, other)


def test_nothing_is_downloaded_unasked(tmp_path):
    """A missing archive is an error, not a download."""
    data = CIFAR10DataModule(data_dir=str(tmp_path))

    data.prepare_data()

    with pytest.raises(SpecError, match="does not exist"):
        data.setup("fit")


def test_the_network_s_size():
    """At width 64 it is the 11-million-parameter ResNet-18, and keeps a small image's size until the second stage."""
    net = ResNet18(width=64, in_channels=3, num_classes=10)

    assert sum(parameter.numel() for parameter in net.parameters()) == 11_173_962
    assert net.stages[0](net.stem(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 32, 32)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
