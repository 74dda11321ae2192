"""The CIFAR-10 archive is read whole and checked, and nothing in it can run."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import cifar_archive
import numpy as np
import pytest
from cifar_archive import TEST_MEMBER, TRAIN_MEMBERS, download_archive, read_archive

from spotproof.errors import SpecError

NUM_IMAGES = 3


def batch(seed: int) -> dict[bytes, object]:
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": b"training batch",
        b"labels": [int(label) for label in rng.integers(0, 10, NUM_IMAGES)],
        b"data": rng.integers(0, 256, (NUM_IMAGES, 3072), dtype=np.uint8),
        b"filenames": [b"x.png"] * NUM_IMAGES,
    }


def write_archive(path: Path, contents: dict[str, bytes] | None = None, **changes: object) -> Path:
    """Write an archive of small batches; *contents* replaces whole members, *changes* keys of the test batch."""
    members = {name: pickle.dumps(batch(seed), protocol=2) for seed, name in enumerate((*TRAIN_MEMBERS, TEST_MEMBER))}
    if changes:
        test = {**batch(5), **{name.encode(): value for name, value in changes.items()}}
        members[TEST_MEMBER] = pickle.dumps(test, protocol=2)
    members |= contents or {}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cifar-10-python.tar.gz"


def test_images_and_labels_in_their_order(path):
    """Five batches make the training set, in their order, and the test batch is apart."""
    train, test = read_archive(write_archive(path))

    expected = [batch(seed) for seed in range(5)]
    assert train.pixels.shape == (5 * NUM_IMAGES, 3, 32, 32)
    np.testing.assert_array_equal(train.pixels.reshape(-1, 3072), np.concatenate([b[b"data"] for b in expected]))
    np.testing.assert_array_equal(train.labels, np.concatenate([b[b"labels"] for b in expected]))
    np.testing.assert_array_equal(test.labels, batch(5)[b"labels"])
    assert (train.pixels.dtype, train.labels.dtype) == (np.uint8, np.int64)


def test_both_spellings_of_numpy(path):
    """Files written by numpy 1 name another module than those of numpy 2."""
    new = pickle.dumps(batch(5), protocol=2)
    assert b"numpy._core.multiarray" in new or b"numpy.core.multiarray" in new
    for old_name, new_name in ((b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")):
        _, test = read_archive(write_archive(path, {TEST_MEMBER: new.replace(old_name, new_name)}))
        np.testing.assert_array_equal(test.labels, batch(5)[b"labels"])


def test_the_original_s_python_2_strings(path):
    """The original was pickled by Python 2, whose strings are bytes; so are its keys."""
    labels = [1, 2, 3]
    pickled = pickle.dumps(batch(5)[b"data"], protocol=2)[2:-1]
    content = b"\x80\x02}(U\x04data" + pickled + b"U\x06labels" + pickle.dumps(labels, protocol=2)[2:-1] + b"u."

    _, test = read_archive(write_archive(path, {TEST_MEMBER: content}))

    assert test.labels.tolist() == labels


class Evil:
    """What a hostile pickle holds: a call of its maker's choice."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("key", ["data", "labels", "filenames"])
def test_nothing_in_it_runs(path, tmp_path, key):
    """A call that hides anywhere in a batch is refused by name, and not made."""
    write_archive(path, **{key: [Evil(tmp_path / "made")]})

    with pytest.raises(SpecError, match=r"(posix|nt)\.mkdir, which is neither a plain value nor an array"):
        read_archive(path)

    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data": np.zeros((3, 3072), dtype=np.float32)}, "no two-dimensional array of bytes"),
        ({"data": np.zeros((3, 100), dtype=np.uint8)}, "a row of 'data' has 100 bytes"),
        ({"data": np.array([[None] * 3072])}, "an array of object"),
        ({"data": "x"}, "no two-dimensional array"),
        ({"labels": [1, 2]}, "2 labels for 3 images"),
        ({"labels": [1, 2, 10]}, "numbers from 0 to 9"),
        ({"labels": [1, 2, True]}, "numbers from 0 to 9"),
    ],
)
def test_wrong_content(path, changes, why):
    """A batch whose content is not images and labels is named, with what is wrong."""
    write_archive(path, **changes)

    with pytest.raises(SpecError, match=why):
        read_archive(path)


def test_a_damaged_pickle(path):
    """A batch that is no pickle is named."""
    write_archive(path, {TRAIN_MEMBERS[2]: b"\x80\x02}"})

    with pytest.raises(SpecError, match="data_batch_3"):
        read_archive(path)


def test_foreign_archive(path):
    """Another archive, say CIFAR-100, is told apart by what it lacks."""
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-100-python/train"))

    with pytest.raises(SpecError, match="It lacks cifar-10-batches-py/data_batch_1"):
        read_archive(path)


def test_missing_file(path):
    """The error for a missing file says three ways to get it."""
    with pytest.raises(SpecError, match=r"does not exist.*data\.data_dir.*data\.download=true"):
        read_archive(path)


def test_cut_anywhere(path):
    """However short the archive is cut, it is refused: nothing is trained on a part of it."""
    whole = write_archive(path).read_bytes()
    for size in (0, 1, 10, 500, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SpecError):
            read_archive(path)


def test_altered_anywhere(path):
    """An altered byte is found, also one that decompresses well: the whole file's checksum is verified."""
    whole = bytearray(write_archive(path).read_bytes())
    tar = bytearray(gzip.decompress(whole))
    tar[len(tar) // 2] ^= 1
    altered = bytearray(gzip.compress(bytes(tar), mtime=0))
    altered[-8:-4] = whole[-8:-4]  # the checksum of the unaltered content
    path.write_bytes(altered)

    with pytest.raises(SpecError, match="CRC"):
        read_archive(path)


def test_not_gzip(path):
    """A file of another kind is told so."""
    path.write_bytes(b"<html>404</html>" * 100)

    with pytest.raises(SpecError, match=r"no \.tar\.gz file"):
        read_archive(path)


def test_download_is_verified(tmp_path, path):
    """What comes with the right checksum is there, whole, and nothing else is."""
    source = write_archive(tmp_path / "source")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()

    download_archive(path, source.as_uri(), digest)

    assert path.read_bytes() == source.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "source"]


def test_wrong_download_leaves_nothing(tmp_path, path):
    """A file with another checksum never stands where the archive should."""
    (tmp_path / "source").write_bytes(b"other")

    with pytest.raises(SpecError, match=r"not the CIFAR-10 archive.*sha256"):
        download_archive(path, (tmp_path / "source").as_uri())

    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def test_unreachable_download(tmp_path, path):
    """No network is told in words that help."""
    with pytest.raises(SpecError, match="could not be fetched"):
        download_archive(path, (tmp_path / "nothing").as_uri())


def test_no_member_is_read_beyond_reason(path, monkeypatch):
    """A member larger than any batch is left alone, so that a hostile archive can't fill the memory."""
    monkeypatch.setattr(cifar_archive, "MEMBER_MAX_BYTES", 100)

    with pytest.raises(SpecError, match="It lacks"):
        read_archive(write_archive(path))
