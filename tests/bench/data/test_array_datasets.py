"""CIFAR-10, Fashion-MNIST and digits: the data sets that are arrays already."""

import gzip
import pickle

import numpy as np
import pytest

from bench.config import DatasetConfig
from bench.data.cifar10 import Cifar10
from bench.data.digits import Digits
from bench.data.fashion_mnist import FashionMNIST, read_idx
from bench.errors import InputError


def idx(array):
    return b"\x00\x00\x08\x03" + b"".join(int(n).to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def clothes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"train": rng.integers(0, 256, (7, 28, 28), np.uint8), "t10k": rng.integers(0, 256, (3, 28, 28), np.uint8)}
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(arrays["train"])))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(arrays["t10k"]))
    return tmp_path, arrays


def fashion(path, **changes):
    return DatasetConfig(**{"name": "fashion_mnist", "path": str(path), "resolution": 28, **changes})


def test_fashion_mnist_is_grey_repeated_in_three_channels(clothes):
    path, arrays = clothes
    images = FashionMNIST().open(fashion(path)).train.images([2, 0])
    assert np.array_equal(images, np.repeat(arrays["train"][[2, 0]][:, None], 3, axis=1))


def test_fashion_mnist_validates_on_its_test_split(clothes):
    assert len(FashionMNIST().open(fashion(clothes[0])).validation) == 3


def test_fashion_mnist_resizes_to_the_resolution(clothes):
    assert FashionMNIST().open(fashion(clothes[0], resolution=32)).train.images([1]).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("damage", [
    lambda data: data[:-5], lambda data: b"\x00\x00\x08\x01" + data[4:], lambda data: data[:9]])
def test_a_damaged_idx_file_is_an_error(tmp_path, damage):
    (tmp_path / "x").write_bytes(damage(idx(np.zeros((2, 4, 4), np.uint8))))
    with pytest.raises(InputError, match="x is"):
        read_idx(tmp_path / "x")


def test_a_truncated_gzip_is_an_error(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(np.zeros((2, 4, 4), np.uint8)))[:-9])
    with pytest.raises(InputError, match="damaged"):
        read_idx(tmp_path / "x.gz")


def test_a_missing_fashion_mnist_names_the_package_that_has_it(tmp_path):
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        FashionMNIST().check(fashion(tmp_path / "none"))


def test_digits_are_all_there_and_fill_the_range():
    splits = Digits().open(DatasetConfig(name="digits", resolution=8))
    images = splits.train.images(range(len(splits.train)))
    assert len(splits.train) + len(splits.validation) == 1797 and (images.min(), images.max()) == (0, 255)


def test_digits_take_no_path():
    with pytest.raises(InputError, match="no effect"):
        Digits().check(DatasetConfig(name="digits", path="/somewhere"))


def test_cifar10_refuses_a_path_that_holds_none_of_its_files(tmp_path):
    with pytest.raises(InputError, match="cifar-10-python.tar.gz"):
        Cifar10().check(DatasetConfig(path=str(tmp_path)))


def test_cifar10_refuses_batches_with_other_pixels(tmp_path):
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (tmp_path / name).write_bytes(pickle.dumps({b"data": np.zeros((10, 3072), np.uint8)}))
    with pytest.raises(InputError, match="expected 47af8b02"):
        Cifar10().open(DatasetConfig(path=str(tmp_path)))


def test_cifar10_runs_no_code_from_a_pickle(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": pytest.fail}))
    with pytest.raises(InputError, match="not part of a numpy array"):
        Cifar10().open(DatasetConfig(path=str(tmp_path)))


@pytest.mark.network
def test_cifar10_is_the_published_one():
    splits = Cifar10().open(DatasetConfig(max_validation=100))
    assert (len(splits.train), len(splits.validation)) == (50_000, 100)
    assert splits.train.images([0])[0, :, 0, 0].tolist() == [59, 62, 63]   # the first pixel of the first frog
